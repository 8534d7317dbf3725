"""The ledger in processes that want the same budget at once, and in processes that are killed.

AGENTFLOW_LEDGER_ROUNDS is the number of races on each database, AGENTFLOW_KILL_ROUNDS that of kills at each failpoint.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent_runtime import Budget, BudgetDecision, EngineLedger, EventFilter, Ledger
from agent_runtime.ledger.records import EventState
from agent_runtime.ledger.writers import SqlLedgerWriter
from runtime_core.call_log.log import CallLog
from runtime_core.call_log.records import AttemptStatus
from runtime_core.clock import ManualClock, SystemClock
from runtime_core.stores import open_database
from runtime_core.stores.sqlite import SqliteDatabase
from support.ledger_process import PROCESSES, OneModel
from support.ledgers import SCOPE, held, who
from support.processes import lines_of
from support.stores import fresh_store_url

ROUNDS = int(os.environ.get("AGENTFLOW_LEDGER_ROUNDS", "1"))
KILLS = int(os.environ.get("AGENTFLOW_KILL_ROUNDS", "2"))
CALLERS = 250
FITS = 100
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC).timestamp()
FAILPOINTS = (
    "call_log.before_reserve",
    "call_log.after_reserve",
    "call_log.before_end",
    "call_log.after_end",
    "store.before_commit",
    "store.after_commit",
)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_of_a_thousand_callers_in_four_processes_exactly_as_many_are_admitted_as_fit(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    for turn in range(ROUNDS):
        folder = tmp_path / str(turn)
        folder.mkdir()
        url = await fresh_store_url(kind, request, folder)
        async with open_database(url, node_id="node-1") as database:
            ledger = Ledger(SqlLedgerWriter(database))
            await ledger.set_budget(Budget(scope_id=SCOPE, max_tokens_daily=10 * FITS))
            said = await lines_of("ledger_process", "race", url, CALLERS, NOON)
            assert (len(said["admitted"]), len(said["refused"])) == (FITS, PROCESSES * CALLERS - FITS)
            assert await held(database) == (0, 0, 0)
            usage = await ledger.usage(SCOPE)
            assert (usage.total_tokens, usage.requests, usage.open) == (10 * FITS, FITS, 0)


async def test_each_side_of_a_windows_boundary_admits_as_many_as_fit(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    async with open_database(url, node_id="node-1") as database:
        ledger = Ledger(SqlLedgerWriter(database))
        await ledger.set_budget(Budget(scope_id=SCOPE, max_requests_per_minute=20))
        # Half a second before a minute ends, so that the callers of the first race may fall on both sides of it.
        said = await lines_of("ledger_process", "race", url, 50, NOON - 0.5)
        later = await lines_of("ledger_process", "race", url, 50, NOON)
        events = (await ledger.list_events(SCOPE, EventFilter(state=EventState.SETTLED), limit=1000)).events
        by_minute = {minute: sum(event.timestamp.minute == minute for event in events) for minute in (59, 0)}
        assert by_minute[0] == 20
        assert by_minute[59] <= 20 <= len(said["admitted"])
        assert len(said["admitted"]) + len(later["admitted"]) == sum(by_minute.values()) == len(events)
        assert await held(database) == (0, 0, 0)


async def test_kill_9_around_reserve_and_settle_loses_no_spending_and_leaves_nothing_reserved(tmp_path: Path) -> None:
    file = tmp_path / "calls.db"
    points = [f"{name}@{1 + 3 * turn}" for turn in range(KILLS) for name in FAILPOINTS]
    async with SqliteDatabase(file, node_id="node-1") as database:
        ledger = Ledger(SqlLedgerWriter(database))
        await ledger.set_budget(Budget(scope_id=SCOPE, max_tokens_total=10**9, max_requests_daily=10**6))
    said = await lines_of("ledger_process", "kill", file, *points)
    assert [status for _, status in said["died"]] == ["-9"] * len(points)

    async with SqliteDatabase(file, node_id="node-1") as database:
        clock = ManualClock(SystemClock().now())
        ledger = Ledger(SqlLedgerWriter(database))
        log = EngineLedger(database, provider=OneModel(), clock=clock).log  # type: ignore[arg-type]
        await log.prepare()
        await check_pairs(log, ledger, said)
        clock.advance(61)
        lapsed = await log.expire()
        await check_pairs(log, ledger, said)
        usage = await ledger.usage(SCOPE)
        assert (usage.open, usage.unknown) == (0, len(lapsed))
        assert await held(database) == (0, 0, 0)
        left = 10**9 - usage.total_tokens
        assert await ledger.check_budget(who(), pending_tokens=left) == BudgetDecision.ALLOW
        assert await ledger.check_budget(who(), pending_tokens=left + 1) == BudgetDecision.DENY


async def check_pairs(log: CallLog, ledger: Ledger, said: dict[str, list[list[str]]]) -> None:
    """Every row of the call log has its event, in the same state, whatever instant the process died in."""
    rows = {row.attempt.attempt_id: row for row in (await log.attempts(SCOPE, limit=100_000)).attempts}
    page = await ledger.list_events(SCOPE, EventFilter(type="model"), limit=100_000)
    events = {event.event_id: event for event in page.events}
    assert rows.keys() == events.keys()
    assert {key for [key] in said["reserved"]} <= rows.keys()
    for key, row in rows.items():
        assert row.status.value == events[key].state.value
        if row.status is AttemptStatus.UNKNOWN:
            assert events[key].total_tokens == events[key].reserved_tokens
    for [key] in said["settled"]:
        assert events[key].state is EventState.SETTLED
