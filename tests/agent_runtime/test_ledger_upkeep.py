"""What becomes of a ledger without requests: dead replicas' calls end, old ones go, and one of many does the work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import ActionManager, ActionSpec, Budget, EngineLedger, EventFilter, Ledger
from agent_runtime.actions.sql_store import SqlActionStore
from agent_runtime.ledger import runs
from agent_runtime.ledger.records import EventState
from agent_runtime.ledger.transactions import StoredTransactions, prepare_ledger
from agent_runtime.ledger.upkeep import EVERY_S, FORGET_EVERY_S, Upkeep
from agent_runtime.ledger.writers import SqlLedgerWriter
from llm_client.detached import Detached
from llm_client.leases import LeaseKeeper
from runtime_core.call_log.log import CallLog
from runtime_core.call_log.records import AttemptStatus
from runtime_core.clock import ManualClock
from runtime_core.stores import Database, everywhere, in_scope, open_database
from runtime_core.stores.sql import Op, Sql
from support.call_log import claim_of, settled
from support.commits import MOST, booked
from support.ledger_process import OneModel
from support.ledgers import SCOPE, held
from support.stores import fresh_store_url

KEEP_S = 86_400.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 5, 1, 12, tzinfo=UTC))


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(await fresh_store_url(request.param, request, tmp_path)) as database:
        await prepare_ledger(database)
        yield database


def upkeep(database: Database, clock: ManualClock, owner: str = "me", keep_s: float | None = KEEP_S) -> Upkeep:
    return Upkeep(database, owner=owner, keep_s=keep_s, clock=clock)


async def test_a_call_whose_replica_died_is_unknown_soon_and_counts_at_its_most(
    database: Database, clock: ManualClock
) -> None:
    log, books, keeper = CallLog(database, clock=clock), StoredTransactions(database), upkeep(database, clock)
    ledger = Ledger(SqlLedgerWriter(database), clock=clock)
    await ledger.set_budget(Budget(scope_id=SCOPE, max_tokens_total=1000))
    for number in range(3):
        await books.reserve(*booked(log, f"a-{number}"))
    assert await keeper.once()
    assert (await ledger.usage(SCOPE)).open == 3
    clock.advance(60 + EVERY_S)
    assert await keeper.once()
    usage = await ledger.usage(SCOPE)
    assert (usage.open, usage.unknown, usage.total_tokens) == (0, 3, 3 * MOST.tokens)
    assert await held(database) == (0, 0, 0)
    assert {row.status for row in (await log.attempts(SCOPE)).attempts} == {AttemptStatus.UNKNOWN}


async def test_a_question_whose_asker_died_expires_in_every_scope(database: Database, clock: ManualClock) -> None:
    store = SqlActionStore(database)
    for scope_id in ("tenant-1", "tenant-2"):
        for timeout_s in (30, 300, None):
            desk = ActionManager(store, clock=clock, scope_id=scope_id)
            await desk.require_action(ActionSpec(type="confirm", timeout_seconds=timeout_s))
    clock.advance(31)
    assert await upkeep(database, clock).once()
    for scope_id in ("tenant-1", "tenant-2"):
        found = await store.list(scope_id)
        assert sorted(each.status for each in found) == ["expired", "pending", "pending"]
    clock.advance(KEEP_S + FORGET_EVERY_S)
    assert await upkeep(database, clock).once()
    for scope_id in ("tenant-1", "tenant-2"):
        assert sorted(each.status for each in await store.list(scope_id)) == ["expired", "pending"]  # the first is gone


async def test_however_much_is_due_goes_in_one_round(database: Database, clock: ManualClock) -> None:
    ledger = Ledger(SqlLedgerWriter(database), clock=clock)

    def left() -> Op[tuple[int, int]]:
        [(due_runs,)] = yield Sql("SELECT COUNT(*) FROM ledger_runs")
        [(counters,)] = yield Sql("SELECT COUNT(*) FROM ledger_counters")
        return due_runs, counters

    for number in range(50):
        await ledger.set_budget(Budget(scope_id=SCOPE, principal_id=f"p-{number}", max_tokens_per_minute=10))
        budget = Budget(scope_id=SCOPE, run_id=f"r-{number}", max_tokens_total=10)
        now = ledger.now()
        beginning = runs.Beginning(budget, "ann", now, now + 60)
        assert await database.run(in_scope(SCOPE, partial(runs.begin, beginning))) is None
    assert await database.read(everywhere(left)) == (50, 100)
    clock.advance(3 * 86_400)
    assert await upkeep(database, clock, keep_s=None).once()
    assert await database.read(everywhere(left)) == (0, 0)


async def test_an_engines_own_log_forgets_all_that_is_old_at_once(
    database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_client.leases._FORGET_AT_ONCE", 4)
    model: Any = OneModel()
    log, books = EngineLedger(database, provider=model, clock=clock).log, StoredTransactions(database)
    for number in range(10):
        attempt, entry = booked(log, f"a-{number}")
        await books.reserve(attempt, entry)
        await books.end(attempt, settled(log), entry)
    clock.advance(KEEP_S)
    keeper = LeaseKeeper(log, Detached(), lease_s=60, claim_lease_s=60)
    keeper.keep_s = KEEP_S / 2
    await keeper._work()  # pyright: ignore[reportPrivateUsage] - its timer is for an engine with calls in flight
    assert (await log.attempts(SCOPE)).attempts == []


async def test_what_is_old_goes_and_budgets_remember_it(database: Database, clock: ManualClock) -> None:
    log, books, keeper = CallLog(database, clock=clock), StoredTransactions(database), upkeep(database, clock)
    ledger = Ledger(SqlLedgerWriter(database), clock=clock)
    await ledger.set_budget(Budget(scope_id=SCOPE, max_requests_total=3))
    for scope in (SCOPE, "tenant-2"):
        attempt, entry = booked(log, "old", scope_id=scope)
        await books.reserve(attempt, entry)
        claim = claim_of("me", scope_id=scope, ttl_s=60)
        await log.begin(claim)
        await books.end_with_claim(attempt, settled(log), entry, claim=claim, now=log.now())
    await keeper.once()
    clock.advance(KEEP_S + FORGET_EVERY_S)
    await books.reserve(*booked(log, "young"))
    await upkeep(database, clock, keep_s=None).once()
    assert len(await _events(ledger)) == 2
    assert await keeper.once()
    assert await _events(ledger) == ["young"]
    assert await _events(ledger, "tenant-2") == []
    assert [row.attempt.attempt_id for row in (await log.attempts(SCOPE)).attempts] == ["young"]
    assert await books.reserve(*booked(log, "third")) is None
    assert await books.reserve(*booked(log, "fourth")) is not None, "the one that was forgotten is still counted"


async def _events(ledger: Ledger, scope_id: str = SCOPE) -> list[str]:
    page = await ledger.list_events(scope_id, EventFilter(type="model"))
    return [event.event_id for event in page.events if event.state is not EventState.NOTED]


async def test_one_of_many_does_it_until_it_stops(database: Database, clock: ManualClock) -> None:
    first, second = upkeep(database, clock, "first"), upkeep(database, clock, "second")
    for _ in range(5):
        assert (await first.once(), await second.once()) == (True, False)
        clock.advance(EVERY_S)
    assert not await second.once()
    clock.advance(3 * EVERY_S)
    assert (await second.once(), await first.once()) == (True, False)
