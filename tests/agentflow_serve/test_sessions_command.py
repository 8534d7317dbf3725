"""`agentflow sessions`: what a person sees of a run store's sessions."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from runtime_core.clock import ManualClock
from runtime_core.stores import open_database
from support.command_line import Ended, agentflow
from support.stored_sessions import FULL, prepared_sessions, said


@pytest.fixture
def store(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/s.db"

    async def fill() -> None:
        clock = ManualClock()
        async with open_database(url) as database:
            sessions = await prepared_sessions(database, clock)
            for session_id in ("first", "second", "third"):
                clock.advance(1)
                await sessions.append(scope_id="default", session_id=session_id, records=[said("hi"), FULL], base=0)
            await sessions.append(scope_id="tenant-2", session_id="theirs", records=[said("secret")], base=0)

    asyncio.run(fill())
    return url


def sessions(*arguments: str) -> Ended:
    return agentflow("sessions", *arguments)


def test_list_shows_a_scopes_sessions_the_latest_first(store: str):
    ended = sessions("list", "--store", store)
    assert (ended.code, ended.err) == (0, "")
    assert [line.split()[-1] for line in ended.out.splitlines()] == ["third", "second", "first"]
    assert ended.out.startswith("2026-01-01 00:00:03      2 records")
    limited = sessions("list", "--store", store, "--limit", "2", "--json")
    document = json.loads(limited.out)
    assert ([each["session_id"] for each in document["sessions"]], document["more"]) == (["third", "second"], True)
    assert "theirs" in sessions("list", "--store", store, "--scope", "tenant-2").out
    assert sessions("list", "--store", store, "--scope", "nobody").err == "the scope nobody has no sessions there\n"


def test_show_prints_what_was_said_and_steers_no_terminal(store: str):
    ended = sessions("show", "first", "--store", store)
    assert ended.out.splitlines()[0] == "user       hi"
    assert "\x00" not in ended.out
    document = json.loads(sessions("show", "first", "--store", store, "--json").out)
    assert (document["version"], document["records"][1]["tool_call_id"]) == (2, "c0")
    missing = sessions("show", "theirs", "--store", store)
    assert (missing.code, missing.err) == (1, "error: the scope default has no session theirs\n")


def test_delete_forgets_one_session_of_one_scope(store: str):
    assert sessions("delete", "first", "--store", store).out == "deleted first\n"
    assert sessions("delete", "first", "--store", store).code == 1
    assert sessions("delete", "theirs", "--store", store).code == 1
    assert len(sessions("list", "--store", store).out.splitlines()) == 2


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path):
    ended = sessions("list", "--store", f"sqlite:///{tmp_path}/typo.db")
    assert (ended.code, "there is no file" in ended.err) == (2, True)
    assert list(tmp_path.iterdir()) == []
    assert sessions("list", "--store", "memory:").code == 2
    assert sessions("list", "--store", "mysql://x").code == 4
