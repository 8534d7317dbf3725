"""A store of an older version keeps its events, and what they add up to."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from agent_runtime import Budget
from agent_runtime.ledger import budget_ops, ops
from agent_runtime.ledger.amounts import Amounts
from agent_runtime.ledger.records import MODEL, Entry, EventState, Used
from agent_runtime.ledger.schema import EVENT_COLUMNS, MIGRATIONS
from runtime_core.stores.database import Database
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
