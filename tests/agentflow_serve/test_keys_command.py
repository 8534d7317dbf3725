"""`agentflow keys`: a key is shown once, listed without itself, and ended."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path

import pytest
import yaml

from agentflow_serve.auth.keys import ApiKey, digest_of, is_key
from agentflow_serve.auth.store import ApiKeys
from agentflow_serve.commands.exits import Exit
from runtime_core.stores import open_database
from support.command_line import Ended, agentflow

ADA = ("--scope", "tenant-1", "--principal", "ada")


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/s.db"


def keys(*arguments: str) -> Ended:
    return agentflow("keys", *arguments)


def found(store: str, text: str) -> ApiKey | None:
    async def find() -> ApiKey | None:
        async with open_database(store) as database:
            return await ApiKeys(database).find(digest_of(text))

    return asyncio.run(find())


def test_a_new_key_is_printed_alone_and_opens_its_scope(store: str):
    ended = keys("new", *ADA, "--store", store, "--expires", "90d", "--flow", "desk", "--name", "her laptop")
    text = ended.out.strip()
    assert ended.code == Exit.OK and is_key(text) and text not in ended.err
    key = found(store, text)
    assert key is not None
    assert (key.scope_id, key.principal_id, key.flows, key.name) == ("tenant-1", "ada", ("desk",), "her laptop")
    assert key.expires_at == pytest.approx(key.created_at + 90 * 86_400)
    document = json.loads(keys("new", *ADA, "--store", store, "--json").out)
    assert is_key(document["key"]) and document["key"] != text and document["expires_at"] is None


def test_the_list_shows_every_key_and_how_it_ends_but_never_the_key(store: str):
    made = [keys("new", "--scope", scope, "--principal", "p", "--store", store) for scope in ("t-1", "t-2")]
    shown = keys("list", "--store", store)
    assert [line.split()[1] for line in shown.out.splitlines()] == ["t-2", "t-1"] and "no end" in shown.out
    assert len(json.loads(keys("list", "--store", store, "--scope", "t-1", "--json").out)["keys"]) == 1
    told = shown.out + shown.err + keys("list", "--store", store, "--json").out
    assert not any(each.out.strip() in told or digest_of(each.out.strip()) in told for each in made)
    assert "there are no keys" in keys("list", "--store", store, "--scope", "nobody").err


def test_a_key_is_revoked_by_its_id_or_as_it_was_found(store: str, monkeypatch: pytest.MonkeyPatch):
    first, second = (keys("new", *ADA, "--store", store).out.strip() for _ in range(2))
    key = found(store, first)
    assert key is not None
    ended = keys("revoke", key.key_id, "--store", store)
    assert (ended.code, ended.out) == (0, f"revoked {key.key_id}; no replica takes it for longer than 5 seconds\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{second}\n".encode())))
    assert keys("revoke", "-", "--store", store).code == Exit.OK
    ended_keys = [found(store, text) for text in (first, second)]
    assert all(each is not None and each.revoked_at is not None for each in ended_keys)
    assert keys("revoke", "key-0", "--store", store).code == Exit.FAILED
    refused = keys("revoke", second, "--store", store)
    assert refused.code == Exit.USAGE and second not in refused.err


def test_the_store_is_the_one_of_the_serve_config(tmp_path: Path, store: str):
    config = tmp_path / "serve.yaml"
    app = {"name": "a", "import_path": "agentflow_serve:app", "args": {"flow": "flow.yaml", "store": store}}
    config.write_text(yaml.safe_dump({"applications": [app]}))
    text = keys("new", *ADA, "--config", str(config)).out.strip()
    assert found(store, text) is not None
    config.write_text(yaml.safe_dump({"applications": [app, {**app, "args": {"flow": "flow.yaml"}}]}))
    assert "do not share one store" in keys("list", "--config", str(config)).err


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (("new", "--scope", " x", "--principal", "p", "--store", "sqlite:///s.db"), "begins or ends with a space"),
        (("new", *ADA, "--flow", "", "--store", "sqlite:///s.db"), "has 0 characters"),
        (("new", *ADA, "--expires", "soon", "--store", "sqlite:///s.db"), "such as 90d"),
        (("new", *ADA, "--store", "memory:"), "ends with its process"),
        (("list", "--store", "sqlite:///absent.db"), "there is no file absent.db"),
        (("list", "--store", "sqlite:///a.db", "--config", __file__), "not both"),
    ],
)
def test_what_makes_no_sense_is_refused_and_makes_no_file(
    wrong: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    ended = keys(*wrong)
    assert ended.code == Exit.USAGE and says in " ".join(ended.err.split())
    assert list(tmp_path.iterdir()) == []
