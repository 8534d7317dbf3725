"""A store of an older version keeps its events and what they add up to; counters are found by their names."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import Budget
from agent_runtime.ledger import budget_ops, holds, ops, runs
from agent_runtime.ledger.amounts import MEASURES, Amounts
from agent_runtime.ledger.counters import count, counted_in
from agent_runtime.ledger.records import MODEL, Entry, EventState, Used
from agent_runtime.ledger.schema import EVENT_COLUMNS, MIGRATIONS
from agent_runtime.ledger.transactions import prepare_ledger
from runtime_core.stores.database import Database
from runtime_core.stores.memory import MemoryDatabase
from runtime_core.stores.migrations import migrate
from runtime_core.stores.scope import in_scope
from runtime_core.stores.sql import Op, Sql
from runtime_core.stores.sqlite import SqliteDatabase

NOW = 1_700_000_000.0
USED = Used(EventState.SETTLED, NOW + 1, Amounts(tokens=30, requests=1), 10, 20)


def entry(event_id: str, tokens: int) -> Entry:
    return Entry("a", event_id, MODEL, NOW, Amounts(tokens=tokens, requests=1), role="chat", lease_until=NOW + 60)


def events() -> Op[list[tuple[Any, ...]]]:
    return (yield Sql("SELECT " + EVENT_COLUMNS + ", counted, lease_until FROM runtime_ledger ORDER BY event_id"))


async def do(database: Database, op: Any, *args: Any) -> Any:
    return await database.run(in_scope("a", partial(op, *args)))


async def test_a_file_from_before_the_events_were_kept_by_their_ids(tmp_path: Path):
    async with SqliteDatabase(tmp_path / "store.db") as database:
        await migrate(database, "runtime_ledger", MIGRATIONS[:4])
        await do(database, budget_ops.set_budget, Budget(scope_id="a", max_tokens_total=100), "evt", NOW)
        await do(database, ops.record, entry("used", 50), USED)
        assert await do(database, ops.reserve, entry("open", 60)) is None
        before = await database.read(in_scope("a", events))
        assert len(before) == 3

        await migrate(database, "runtime_ledger", MIGRATIONS)

        assert await database.read(in_scope("a", events)) == before
        assert (await do(database, ops.reserve, entry("too much", 11))).reason == "budget_exceeded"
        assert await do(database, ops.end, "a", "open", USED) is not None
        assert await do(database, ops.reserve, entry("fits now", 40)) is None


async def test_a_run_is_held_where_no_other_budget_counts_it():
    async with MemoryDatabase() as database:
        await prepare_ledger(database)
        run = runs.Beginning(Budget(scope_id="a", run_id="r", max_tokens_total=100), "ann", NOW, NOW + 60, holds=True)
        assert await do(database, runs.begin, run) is None
        call = Entry("a", "call", MODEL, NOW, Amounts(tokens=10), run_id="r", budgeted=True)
        assert await do(database, holds.reserve, call) is None
        assert await held(database) == 90
        await database.run(in_scope("a", lambda: holds.end("a", "call", USED._replace(actual=Amounts(4)), run_id="r")))
        assert await held(database) == 96


async def held(database: Database) -> int:
    def look() -> Op[int]:
        rows = yield Sql("SELECT reserved_tokens FROM runtime_ledger WHERE event_id = ?", (holds.hold_id("r"),))
        return rows[0][0]

    return await database.read(in_scope("a", look))


@pytest.mark.parametrize("number", [1, 2, 3, 8])
async def test_a_few_counters_are_looked_up_one_by_one(number: int):
    """Those of windows that are over are kept for days: to read all of a scope would be dear."""
    told: list[Sql] = []

    def explained() -> Op[list[str]]:
        places = [("", "", "", f"2026-11-{day:02}") for day in range(1, number + 1)]
        told.extend(count("a", counted_in(places), (1,) * 2 * len(MEASURES)))
        rows = yield Sql("EXPLAIN QUERY PLAN " + told[0].text, told[0].params)
        return [row[3] for row in rows]

    async with MemoryDatabase() as database:
        await prepare_ledger(database)
        plan = await database.read(in_scope("a", explained))
    assert sum("period=?" in step for step in plan) == 1 << (number - 1).bit_length()
    assert not [step for step in plan if "SCAN" in step or ("SEARCH" in step and "period=?" not in step)]
