"""`agentflow actions`: what a person sees of the questions in a run store, and how they answer."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent_runtime import ActionManager, ActionRecord, ActionSpec, SqliteActionStore
from runtime_core.clock import ManualClock
from support.command_line import Ended, agentflow


@pytest.fixture
def file(tmp_path: Path) -> Path:
    async def fill() -> None:
        clock = ManualClock(datetime.now(UTC).replace(microsecond=0))
        async with SqliteActionStore(tmp_path / "s.db") as store:
            mine = ActionManager(store, clock=clock)
            for action_id in ("first", "second"):
                await mine.require_action(
                    ActionSpec(type="con\x1bfirm", payload={"say": "hé\x07"}, action_id=action_id, timeout_seconds=99)
                )
                clock.advance(1)
            await mine.for_scope("tenant-2").require_action(ActionSpec(type="confirm", action_id="theirs"))

    asyncio.run(fill())
    return tmp_path / "s.db"


def actions(file: Path, *arguments: str) -> Ended:
    return agentflow("actions", *arguments, "--store", f"sqlite:///{file}")


def kept(file: Path, action_id: str, scope_id: str = "default") -> ActionRecord:
    async def get() -> ActionRecord:
        async with SqliteActionStore(file) as store:
            return await ActionManager(store, scope_id=scope_id).get(action_id)

    return asyncio.run(get())


def test_list_shows_what_a_scope_is_asked_the_newest_first(file: Path):
    ended = actions(file, "list")
    assert (ended.code, ended.err) == (0, "")
    assert [line.split()[0] for line in ended.out.splitlines()] == ["second", "first"]
    assert "con?firm" in ended.out and "\x1b" not in ended.out
    page = actions(file, "list", "--limit", "1")
    assert len(page.out.splitlines()) == 1
    assert "--limit shows up to 1000, and --after goes on" in page.err
    document = json.loads(actions(file, "list", "--json", "--limit", "1").out)
    assert [each["action_id"] for each in document["actions"]] == ["second"]
    document = json.loads(actions(file, "list", "--json", "--limit", "1", "--after", document["next"]).out)
    assert ([each["action_id"] for each in document["actions"]], document["next"]) == (["first"], None)
    assert actions(file, "list", "--after", "e30").code == 2
    assert actions(file, "list", "--scope", "tenant-2").out.startswith("theirs")
    assert actions(file, "list", "--status", "resolved").err == "the scope default has no resolved actions there\n"


def test_the_first_answer_counts(file: Path):
    assert actions(file, "resolve", "first", "--approve", "--by", "ada").out == "resolved first\n"
    again = actions(file, "resolve", "first", "--reject")
    assert (again.code, "resolved already" in again.err) == (1, True)
    action = kept(file, "first")
    assert (action.resolution, action.resolved_by) == ({"approved": True}, "ada")
    shown = actions(file, "show", "first").out.splitlines()
    assert shown[1:] == ['asks      {"say": "hé\\u0007"}', 'answered  {"approved": true} (by ada)']
    assert [line.split()[0] for line in actions(file, "list").out.splitlines()] == ["second"]
    assert len(actions(file, "list", "--status", "all").out.splitlines()) == 2


def test_an_answer_is_any_json_object(file: Path):
    assert actions(file, "resolve", "second", "--resolution", '{"amount": 3}').code == 0
    assert json.loads(actions(file, "show", "second", "--json").out)["resolution"] == {"amount": 3}


@pytest.mark.parametrize(
    "given", [[], ["--approve", "--resolution", "{}"], *(["--resolution", text] for text in ("{", "[]", '{"n": NaN}'))]
)
def test_what_is_no_answer_is_wrong_usage(file: Path, given: list[str]):
    assert actions(file, "resolve", "first", *given).code == 2
    assert kept(file, "first").is_settled is False


def test_another_scopes_action_is_none(file: Path):
    for arguments in (["show", "theirs"], ["resolve", "theirs", "--approve"]):
        ended = actions(file, *arguments)
        assert (ended.code, ended.out) == (1, "")
        assert "There is no action 'theirs' in this scope." in ended.err
    assert kept(file, "theirs", "tenant-2").is_settled is False
