"""A small store to try databases with: entries with an idempotent id, and their sum per scope."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from runtime_core.errors import StoreUnavailableError
from runtime_core.stores import Database, Migration, Op, Sql, migrate

T = TypeVar("T")

JOURNAL = (
    Migration(
        version=1,
        statements=(
            "CREATE TABLE entry (scope_id {text} NOT NULL, entry_id {text} NOT NULL, amount {int} NOT NULL,"
            " PRIMARY KEY (scope_id, entry_id))",
            "CREATE TABLE total (scope_id {text} PRIMARY KEY, amount {int} NOT NULL)",
        ),
    ),
)


async def prepare_journal(database: Database) -> None:
    await migrate(database, "journal", JOURNAL)


def record(entry_id: str, *, scope: str = "s", amount: int = 1) -> Op[int]:
    """Count the entry once, however often it is sent; the scope's total."""
    new = yield Sql(
        "INSERT INTO entry (scope_id, entry_id, amount) VALUES (?, ?, ?)"
        " ON CONFLICT (scope_id, entry_id) DO NOTHING RETURNING entry_id",
        (scope, entry_id, amount),
    )
    if new:
        yield from add(amount, scope=scope)
    return (yield from total(scope=scope))


def add(amount: int, *, scope: str = "s") -> Op[int]:
    """Read, then write: only a serializable transaction gets this right."""
    before = yield from total(scope=scope)
    yield Sql(
        "INSERT INTO total (scope_id, amount) VALUES (?, ?)"
        " ON CONFLICT (scope_id) DO UPDATE SET amount = excluded.amount",
        (scope, before + amount),
    )
    return before + amount


def total(*, scope: str = "s") -> Op[int]:
    rows = yield Sql("SELECT amount FROM total WHERE scope_id = ?", (scope,))
    return rows[0][0] if rows else 0


def entry_ids(*, scope: str = "s") -> Op[set[str]]:
    rows = yield Sql("SELECT entry_id FROM entry WHERE scope_id = ?", (scope,))
    return {row[0] for row in rows}


async def persist(call: Callable[[], Awaitable[T]]) -> T:
    """What a caller with idempotent ids does: repeat until the store says that it is stored."""
    while True:
        try:
            return await call()
        except StoreUnavailableError:
            continue
