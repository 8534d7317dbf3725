"""Reads the books of a finished scenario; and, before it begins, has the database keep every state of its counters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial

from agent_runtime.ledger import budget_ops, finds
from agent_runtime.ledger.budgets import Account, Budget
from agent_runtime.ledger.finds import EventCursor, EventFilter
from agent_runtime.ledger.records import LedgerEvent
from agent_runtime.ledger.schema import COUNTS
from faults.books import Books, Counted, KeyedCall, Rates
from llmhub_runtime.sim import LogEntry
from runtime_core.call_log import finds as call_finds
from runtime_core.call_log.finds import Cursor, Filter
from runtime_core.call_log.records import LoggedAttempt
from runtime_core.stores import Database, Op, Sql, in_scope

_PAGE = 1000
_PLACE = "scope_id, principal_id, role, run_id, period"
_HISTORY = "CREATE TABLE faults_history AS SELECT " + _PLACE + ", " + COUNTS + " FROM ledger_counters WHERE 1 = 0"
_NEW = ", ".join(f"NEW.{name.strip()}" for name in f"{_PLACE}, {COUNTS}".split(","))
_SAME_PLACE = " AND ".join(f"{name} = NEW.{name}" for name in _PLACE.split(", "))
_NOTE = "INSERT INTO faults_history VALUES (" + _NEW + ")"
_TRIGGERS = {
    "sqlite": tuple(
        f"CREATE TRIGGER faults_{event} AFTER {event} ON ledger_counters BEGIN {_NOTE}; END"
        for event in ("INSERT", "UPDATE")
    ),
    # Deferred, so that what a transaction itself takes back again is not taken for something that others saw.
    "postgresql": (
        "CREATE FUNCTION faults_note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO faults_history SELECT "
        f"{_PLACE}, {COUNTS} FROM ledger_counters c WHERE c = NEW AND {_SAME_PLACE}; RETURN NULL; END $$",
        "CREATE CONSTRAINT TRIGGER faults_counters AFTER INSERT OR UPDATE ON ledger_counters"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION faults_note()",
    ),
}


async def keep_history(database: Database) -> None:
    """From now on every state that a counter is committed in is kept, whoever commits it."""

    def op() -> Op[None]:
        for statement in (_HISTORY, *_TRIGGERS[database.dialect.name]):
            yield Sql(statement)

    await database.run(op)


async def read_books(
    database: Database,
    requests: Sequence[LogEntry],
    *,
    scope_id: str,
    rates: Mapping[str, Rates] | None = None,
    keyed: Sequence[KeyedCall] = (),
) -> Books:
    """The scope's books, beside the model calls among `requests`."""
    return Books(
        requests=[entry for entry in requests if entry.kind in ("chat", "embedding")],
        rows=[row async for row in _rows(database, scope_id)],
        events=[event async for event in _events(database, scope_id)],
        budgets=[budget async for budget in _budgets(database, scope_id)],
        counters=await _counted(database, "ledger_counters", scope_id),
        history=await _counted(database, "faults_history", scope_id),
        keyed=keyed,
        rates=rates or {},
    )


async def attempts_so_far(database: Database, scope_id: str) -> int:
    """How many rows the scope's call log has."""

    def op() -> Op[int]:
        [[count]] = yield Sql("SELECT COUNT(*) FROM calls WHERE scope_id = ?", (scope_id,))
        return int(count)

    return await database.read(in_scope(scope_id, op))


async def _rows(database: Database, scope_id: str) -> AsyncIterator[LoggedAttempt]:
    after: Cursor | None = None
    while True:
        page = await database.read(
            in_scope(scope_id, partial(call_finds.attempts, scope_id, Filter(), after=after, limit=_PAGE))
        )
        for row in page.attempts:
            yield row
        if (after := page.next) is None:
            return


async def _events(database: Database, scope_id: str) -> AsyncIterator[LedgerEvent]:
    after: EventCursor | None = None
    while True:
        page = await database.read(in_scope(scope_id, partial(finds.events, scope_id, EventFilter(), after, _PAGE)))
        for event in page.events:
            yield event
        if (after := page.next) is None:
            return


async def _budgets(database: Database, scope_id: str) -> AsyncIterator[Budget]:
    after: Account | None = None
    while True:
        page = await database.read(in_scope(scope_id, partial(budget_ops.list_budgets, scope_id, after, _PAGE)))
        for budget in page:
            yield budget
        if len(page) < _PAGE:
            return
        after = page[-1].account


async def _counted(database: Database, table: str, scope_id: str) -> list[Counted]:
    def op() -> Op[list[Counted]]:
        rows = yield Sql("SELECT " + _PLACE + ", " + COUNTS + " FROM " + table + " WHERE scope_id = ?", (scope_id,))
        return [_counter(*row) for row in rows]

    return await database.read(in_scope(scope_id, op))


def _counter(scope_id: str, principal_id: str, role: str, run_id: str, period: str, *counts: int) -> Counted:
    half = len(counts) // 2
    return Counted(Account(scope_id, principal_id, role, run_id), period, counts[:half], counts[half:])
