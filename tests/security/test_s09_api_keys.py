"""RELIABILITY S7 and S9 for API keys: who has none, or one that ended, learns nothing; who has one is who it says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow_serve.auth.authenticator import KEY_FRESH_S, KeyAuthenticator, credential
from agentflow_serve.auth.keys import ApiKey, digest_of, is_key, key_text
from agentflow_serve.auth.open_routes import open_to_all
from agentflow_serve.auth.store import ApiKeys
from agentflow_serve.kserve_app import build_predictor_app
from agentflow_serve.limits import EdgeLimits
from runtime_core.clock import ManualClock
from runtime_core.errors import StoreUnavailableError
from runtime_core.sessions.store import StoredSessions
from runtime_core.stores import open_database
from support.predictor_server import SHOUT, Runner, serving
from support.stored_sessions import prepared_sessions, said

ADA, BOB, OLD, GONE, OTHER, NOBODY = (key_text(bytes([number]) * 32) for number in range(6))
PREDICT = "/v1/models/m:predict"
BODY = {"instances": [{"text": "hi"}]}


class Keys:
    """The store, and how often it was asked; `away` is what it raises instead of answering."""

    def __init__(self, store: ApiKeys) -> None:
        self.store = store
        self.asked = 0
        self.away: Exception | None = None

    async def find(self, digest: str) -> ApiKey | None:
        self.asked += 1
        if self.away is not None:
            raise self.away
        return await self.store.find(digest)

    async def add(self, text: str, key_id: str, scope_id: str, **more: Any) -> None:
        known = {"key_id": key_id, "scope_id": scope_id, "principal_id": key_id.partition("-")[0], "created_at": 0.0}
        await self.store.add(ApiKey.model_validate(known | more), digest=digest_of(text))


class Service:
    def __init__(self, client: httpx.AsyncClient, keys: Keys, runner: Runner, clock: ManualClock) -> None:
        self.client, self.keys, self.runner, self.clock = client, keys, runner, clock

    async def ask(self, *headers: tuple[str, str], path: str = PREDICT, method: str = "POST") -> httpx.Response:
        return await self.client.request(method, path, headers=list(headers), json=BODY if method == "POST" else None)


def bearer(key: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {key}")


@asynccontextmanager
async def service(url: str = "memory:") -> AsyncIterator[Service]:
    """A predictor that asks for keys. Two tenants have one each; another is expired, revoked, or for another flow."""
    clock = ManualClock()
    now = clock.now().timestamp()
    async with open_database(url) as database:
        keys = Keys(ApiKeys(database))
        await keys.store.prepare()
        await keys.add(ADA, "ada-1", "tenant-1", expires_at=now + 3600)
        await keys.add(BOB, "bob-1", "tenant-2")
        await keys.add(OLD, "old-1", "tenant-1", expires_at=now)
        await keys.add(GONE, "gone-1", "tenant-1", revoked_at=now)
        await keys.add(OTHER, "other-1", "tenant-1", flows=("another",))
        sessions: StoredSessions = await prepared_sessions(database, clock)
        for scope_id in ("tenant-1", "tenant-2"):
            await sessions.append(scope_id=scope_id, session_id="s", records=[said(f"of {scope_id}")], base=0)
        runner = Runner()
        app = build_predictor_app(
            name="m",
            signature=SHOUT,
            runner=runner,
            limits=EdgeLimits(),
            sessions=sessions,
            auth=KeyAuthenticator(keys.find, flow="m", clock=clock),
        )
        async with serving(app) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            yield Service(client, keys, runner, clock)


async def test_a_key_says_who_asks_and_headers_beside_it_do_not():
    async with service() as desk:
        claims = [("x-scope-id", "tenant-2"), ("x-user", "root"), ("x-principal-id", "root"), ("forwarded", "for=root")]
        for way in (bearer(ADA), ("authorization", f"bearer  {ADA}"), ("x-api-key", ADA)):
            assert (await desk.ask(way, *claims)).status_code == 200
        assert (await desk.ask(bearer(BOB))).status_code == 200
        infer = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["hi"]}]}
        assert (await desk.client.post("/v2/models/m/infer", json=infer, headers=[bearer(ADA)])).status_code == 200
        callers = [(call.identity.scope_id, call.identity.principal_id) for _, call in desk.runner.calls]
        assert callers == [("tenant-1", "ada")] * 3 + [("tenant-2", "bob"), ("tenant-1", "ada")]


async def test_sessions_are_those_of_the_keys_tenant():
    async with service() as desk:
        for key, tenant in ((ADA, "tenant-1"), (BOB, "tenant-2")):
            shown = (await desk.ask(bearer(key), path="/v1/sessions/s", method="GET")).json()
            assert [record["text"] for record in shown["records"]] == [f"of {tenant}"]
        assert (await desk.ask(bearer(ADA), path="/v1/sessions/s", method="DELETE")).status_code == 204
        assert (await desk.ask(bearer(BOB), path="/v1/sessions/s", method="GET")).status_code == 200
        assert (await desk.ask(path="/v1/sessions/s", method="DELETE")).status_code == 401


async def test_no_key_a_wrong_one_and_one_that_ended_get_the_same_answer_and_cost_the_same():
    async with service() as desk:
        answers: set[str] = set()
        ways: list[tuple[tuple[str, str], ...]] = [(), (bearer("afk_short"),), (("authorization", f"Basic {ADA}"),)]
        ways += [(bearer(ADA), bearer(BOB)), (bearer(ADA), ("x-api-key", BOB)), (("authorization", ADA),)]
        looked_up: list[tuple[tuple[str, str], ...]] = [(bearer(each),) for each in (NOBODY, OLD, GONE)]
        for way in [*ways, *looked_up * 2]:
            before = desk.keys.asked
            answer = await desk.ask(*way)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == 'Bearer realm="agentflow"'
            answers.add(answer.text.replace(answer.headers["x-trace-id"], "TRACE"))
            assert desk.keys.asked - before == (way in looked_up), "one look for each, also for the second time"
        assert len(answers) == 1 and not desk.runner.calls


async def test_a_key_for_another_flow_is_known_and_not_allowed():
    async with service() as desk:
        for path in (PREDICT, "/v1/sessions/s"):
            answer = await desk.ask(bearer(OTHER), path=path, method="POST" if path == PREDICT else "GET")
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


async def test_probes_need_no_key_and_everything_else_does():
    async with service() as desk:
        probes = ["/", "/v1/models/m", "/v2/health/live", "/v2/health/ready", "/v2/models/m/ready"]
        assert [(await desk.ask(path=path, method="GET")).status_code for path in probes] == [200] * 5
        for path in ("/v1/models", "/v2", "/v2/models", "/v2/models/m", "/openapi.json", "/v2/health/ready/", "/x"):
            assert (await desk.ask(path=path, method="GET")).status_code == 401, path
            assert (await desk.ask(bearer(ADA), path=path, method="GET")).status_code != 401, path
        for path in [*probes, "/v2/repository/models/m/load"]:
            assert (await desk.ask(path=path)).status_code == 401, path


def test_an_open_route_stays_open_below_a_prefix_and_a_trick_does_not_open_another():
    def opens(path: str, root: str = "/desk") -> bool:
        return open_to_all({"path": path, "root_path": root, "method": "GET"})

    assert opens("/desk/v2/health/ready") and opens("/desk/") and opens("/v2/health/live", root="")
    tricks = ["/desk/v1/models/m:predict", "/desk/v2/models/m", "/desk/desk/", "/desk/v1/sessions/v2/health/live"]
    assert not any(map(opens, [*tricks, "/desk/v2/health/live\n", "/deskv2/health/live", "/desk/v2/models/a/b/ready"]))


async def test_a_revoked_key_ends_within_the_time_that_is_promised(tmp_path: Path):
    async with service(f"sqlite:///{tmp_path}/keys.db") as desk:
        assert (await desk.ask(bearer(BOB))).status_code == 200
        await desk.keys.store.revoke("bob-1", now=desk.clock.now().timestamp())
        desk.clock.advance(KEY_FRESH_S - 0.1)
        assert (await desk.ask(bearer(BOB))).status_code == 200
        assert desk.keys.asked == 1, "asked for anew with every request"
        desk.clock.advance(0.1)
        assert (await desk.ask(bearer(BOB))).status_code == 401


async def test_a_key_expires_while_it_is_remembered():
    async with service() as desk:
        desk.clock.advance(3599)
        assert (await desk.ask(bearer(ADA))).status_code == 200
        desk.clock.advance(1)
        assert (await desk.ask(bearer(ADA))).status_code == 401
        assert desk.keys.asked == 1


@pytest.mark.parametrize("away", [StoreUnavailableError("the disk of afk_ is gone"), TimeoutError()])
async def test_while_the_store_is_away_nobody_comes_in_who_is_not_known(away: Exception):
    async with service() as desk:
        assert (await desk.ask(bearer(ADA))).status_code == 200
        desk.keys.away = away
        assert (await desk.ask(bearer(ADA))).status_code == 200
        for key in (BOB, NOBODY):
            answer = await desk.ask(bearer(key))
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "afk_" not in answer.text
        desk.clock.advance(KEY_FRESH_S)
        assert (await desk.ask(bearer(ADA))).status_code == 503, "a key that may be revoked by now"


async def test_a_key_is_in_no_log_answer_or_header_that_the_flow_sees(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    seen: list[Any] = []

    class Broken(Runner):
        async def run(self, request: dict[str, Any], call: Any) -> Any:
            seen.append(repr(call))
            raise RuntimeError("a defect")

    async with service() as desk:
        desk.runner.run = Broken().run  # pyright: ignore[reportAttributeAccessIssue]
        answers = [await desk.ask(bearer(key)) for key in (ADA, OLD, NOBODY)]
        answers += [await desk.ask(("x-api-key", ADA), ("cookie", ADA), path="/x", method="GET")]
    told = caplog.text + "".join(seen) + "".join(f"{answer.headers}{answer.text}" for answer in answers)
    secret = [each for key in (ADA, OLD, NOBODY) for each in (key, digest_of(key)) if each in told]
    assert answers[0].status_code == 500 and seen and secret == []


async def test_the_store_has_no_key_and_no_repr_does(tmp_path: Path):
    async with service(f"sqlite:///{tmp_path}/keys.db") as desk:
        await desk.ask(bearer(ADA))
        found = await desk.keys.store.list()
    kept = b"".join(file.read_bytes() for file in tmp_path.iterdir()) + repr(found).encode()
    assert digest_of(ADA).encode() in kept and ADA.encode() not in kept and ADA[4:].encode() not in kept
    assert digest_of(ADA) not in repr(found)


def test_a_key_has_256_bits_and_one_form():
    assert key_text(bytes(32)) == "afk_" + "A" * 43 and is_key(key_text(b"\xff" * 32))
    with pytest.raises(ValueError, match="32 random bytes"):
        key_text(bytes(31))


@given(st.binary(max_size=80), st.sampled_from([b"authorization", b"x-api-key"]), st.booleans())
def test_whatever_stands_in_the_header_it_is_a_key_or_nothing(text: bytes, name: bytes, scheme: bool):
    found = credential([(name, (b"Bearer " if scheme else b"") + text)])
    assert found is None or (is_key(found) and found.encode() in text)


async def test_lookups_that_hang_are_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("agentflow_serve.auth.authenticator.LOOKUP_S", 0.01)

    async def hang(_: str) -> None:
        await asyncio.Event().wait()

    checker = KeyAuthenticator(hang, flow="m", clock=ManualClock())
    with pytest.raises(Exception, match="cannot be checked now"):
        await checker.identify([(b"x-api-key", ADA.encode())])
