"""An operation on a store, written once, without I/O: a generator that yields SQL and receives rows.

    def deposit(scope_id: str, amount: int) -> Op[int]:
        rows = yield Sql(
            "UPDATE account SET total = total + ? WHERE scope_id = ? RETURNING total", (amount, scope_id)
        )
        return rows[0][0]

    total = await database.run(in_scope("tenant-1", lambda: deposit("tenant-1", 5)))

The SQL is portable text: `?` parameters (and no `?` in literals), `ON CONFLICT` to handle a key that is
taken, `RETURNING` to learn what was changed, no functions of one dialect. Values are text, 64-bit integers,
floats, bytes and None; truth values are integers, JSON is text, text has no NUL. No identifier from a request
ever enters it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")

SqlValue: TypeAlias = str | int | float | bytes | None
Rows: TypeAlias = list[tuple[Any, ...]]


class Sql(NamedTuple):
    """One statement and its parameters, in order.

    With `counts` its one row is the number of rows that it changed, which costs less than `RETURNING`.
    """

    text: str
    params: tuple[SqlValue, ...] = ()
    counts: bool = False


def where(*conditions: tuple[str, SqlValue]) -> tuple[str, list[SqlValue]]:
    """The conditions whose value is not None, each as ` AND ...`, and those values: None does not filter."""
    asked = [(text, value) for text, value in conditions if value is not None]
    return "".join(f" AND {text}" for text, _ in asked), [value for _, value in asked]


TEXT, WHOLE, REAL, TIME = (f"CAST(? AS {kind})" for kind in ("TEXT", "BIGINT", "DOUBLE PRECISION", "TIMESTAMPTZ"))
"""Parameters of a row that no column gives a type, as SQLite and PostgreSQL understand them both."""


@lru_cache(maxsize=1024)
def with_rows(text: str, row: str | tuple[str, ...], count: int) -> str:
    """`text` with the rows of a VALUES list for its `{rows}`: `row` says the types, after it all values are `?`."""
    more = ", (" + ", ".join("?" * len(row)) + ")"
    return text.replace("{rows}", f"({', '.join(row)})" + more * (count - 1))


Op: TypeAlias = Generator[Sql, Rows, T]
OpFactory: TypeAlias = Callable[[], Op[T]]


def drive(operation: Op[T], execute: Callable[[Sql], Rows]) -> T:
    """Run `operation` to its end with `execute`.

    A statement's error ends it and cannot be caught inside: on PostgreSQL the transaction is over anyway.
    """
    try:
        statement = next(operation)
        while True:
            statement = operation.send(execute(statement))
    except StopIteration as finished:
        return finished.value
    finally:
        operation.close()


async def drive_async(operation: Op[T], execute: Callable[[Sql], Awaitable[Rows]]) -> T:
    """`drive` where statements are awaited."""
    try:
        statement = next(operation)
        while True:
            statement = operation.send(await execute(statement))
    except StopIteration as finished:
        return finished.value
    finally:
        operation.close()
