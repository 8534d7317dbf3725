"""Sessions through the shared actor, and past it: same store, same records, whatever becomes of the actor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from agentflow_serve.actor_or_store import AWAY_S
from agentflow_serve.errors import LedgerAway
from agentflow_serve.ledger_sessions import LedgerSessions, Place, SessionTerms
from agentflow_serve.run_store import RunStore
from agentflow_serve.shared_sessions import SharedSessions
from runtime_core.clock import SystemClock
from runtime_core.errors import StoreFullError, StoreUnavailableError
from runtime_core.sessions.ops import SessionLimits
from runtime_core.sessions.store import StoredSessions
from runtime_core.stores import open_database
from support.stored_sessions import prepared_sessions, said
from support.waiting import until

HERE: dict[str, Any] = {"scope_id": "default", "session_id": "s"}


class Actor:
    """The actor without Ray. `lost` answers get lost after the work, `away` calls before it; both as Ray says so."""

    def __init__(self, ledger: LedgerSessions) -> None:
        self.ledger = ledger
        self.calls = 0
        self.away = self.lost = False
        self.gate: asyncio.Event | None = None

    async def call(
        self, method: str, terms: SessionTerms, name: str, place: Place, *args: Any, timeout_s: float
    ) -> Any:
        self.calls += 1
        if self.away:
            raise LedgerAway("away")
        if self.gate is not None:
            await self.gate.wait()
        answer = await getattr(self.ledger, name)(place, *args)
        if self.lost:
            raise LedgerAway("lost")
        return answer


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[StoredSessions]:
    async with open_database(f"sqlite:///{tmp_path}/s.db") as database:
        yield await prepared_sessions(database, SystemClock())


@pytest.fixture
async def actor(tmp_path: Path) -> AsyncIterator[Actor]:
    async with AsyncExitStack() as stack:
        ledger = LedgerSessions(RunStore(stack, f"sqlite:///{tmp_path}/s.db"), None)
        stack.push_async_callback(ledger.aclose)
        yield Actor(ledger)


def shared(actor: Actor, past: StoredSessions | None, now: list[float]) -> SharedSessions:
    calls: Any = actor
    return SharedSessions(calls, SessionTerms("sqlite:", None), past, clock=lambda: now[0])


async def test_an_actor_that_does_not_answer_is_passed_by_for_a_while(store: StoredSessions, actor: Actor):
    now = [0.0]
    sessions = shared(actor, store, now)
    assert await sessions.append(**HERE, records=[said("a")], base=0) == 1
    actor.away = True
    assert await sessions.append(**HERE, records=[said("b")], base=1) == 2
    actor.away = False
    assert len((await sessions.read(**HERE)).records) == 2
    assert actor.calls == 2, "not asked again so soon"
    now[0] += AWAY_S
    assert [record.text for record in (await sessions.read(**HERE)).records] == ["a", "b"]
    assert actor.calls == 3
    assert (await sessions.info(**HERE) is not None, await sessions.delete(**HERE)) == (True, True)
    assert await store.info(**HERE) is None


async def test_an_append_whose_answer_got_lost_is_kept_once(store: StoredSessions, actor: Actor):
    actor.lost = True
    assert await shared(actor, store, [0.0]).append(**HERE, records=[said("a"), said("b")], base=0) == 2
    assert (await store.read(**HERE)).version == 2


@pytest.mark.parametrize("away", [False, True])
async def test_sessions_fork_and_merge_on_both_ways(store: StoredSessions, actor: Actor, away: bool):
    sessions, branch = shared(actor, store, [0.0]), {**HERE, "session_id": "branch"}
    await sessions.append(**HERE, records=[said("a"), said("b")], base=0)
    actor.away = away
    assert await sessions.fork(**HERE, into="branch", at=1) == 1
    await sessions.append(**branch, records=[said("c")], base=1)
    assert await sessions.merge(**HERE, sources=["branch"]) == 3
    assert [record.text for record in (await store.read(**HERE)).records] == ["a", "b", "c"]


async def test_an_append_goes_on_when_its_caller_is_cancelled(store: StoredSessions, actor: Actor):
    actor.gate = asyncio.Event()
    sessions = shared(actor, store, [0.0])
    caller = asyncio.create_task(sessions.append(**HERE, records=[said("a")], base=0))
    await until(lambda: actor.calls)
    caller.cancel()
    await asyncio.wait({caller})
    assert caller.cancelled()
    actor.gate.set()
    await sessions.drain()
    assert (await store.read(**HERE)).version == 1


async def test_what_the_store_refuses_is_refused_and_not_tried_again(tmp_path: Path, actor: Actor):
    async with open_database(f"sqlite:///{tmp_path}/s.db") as database:
        small = await prepared_sessions(database, SystemClock(), limits=SessionLimits(max_records=0))
        actor.away = True
        with pytest.raises(StoreFullError):
            await shared(actor, small, [0.0]).append(**HERE, records=[said("a")], base=0)


async def test_sessions_in_memory_are_in_the_actor_alone(actor: Actor):
    sessions = shared(actor, None, [0.0])
    assert await sessions.append(**HERE, records=[said("a")], base=0) == 1
    actor.away = True
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="memory"):
            await sessions.read(**HERE)
    actor.away = False
    assert (await sessions.read(**HERE)).version == 1
