"""What the stores of this package have in common: one implementation in SQL, on whichever database it is given."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import CoroutineType, TracebackType
from typing import Any, ClassVar, Self, TypeVar

from runtime_core.stores.database import Database
from runtime_core.stores.migrations import Migration, migrate
from runtime_core.stores.sql import OpFactory
from runtime_core.stores.sqlite import SqliteDatabase

T = TypeVar("T")


class SqlStore:
    """Its tables are made or upgraded before its first operation. `owns`: closing the store closes the database."""

    COMPONENT: ClassVar[str]
    MIGRATIONS: ClassVar[Sequence[Migration]]

    def __init__(self, database: Database, *, owns: bool = False) -> None:
        self._database = database
        self._owns = owns
        self._preparing = asyncio.Lock()
        self._is_prepared = False

    @property
    def database(self) -> Database:
        """Where it keeps its tables, for stores that belong beside it."""
        return self._database

    async def prepare(self) -> None:
        """Create or upgrade the tables; every other method does it when it is first called."""
        async with self._preparing:
            if not self._is_prepared:
                await migrate(self._database, self.COMPONENT, self.MIGRATIONS)
                self._is_prepared = True

    async def close(self) -> None:
        """Let go of a database of its own; one that was passed in stays open."""
        if self._owns:
            await self._database.close()

    async def __aenter__(self) -> Self:
        await self.prepare()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _run(self, op_factory: OpFactory[T]) -> CoroutineType[Any, Any, T]:
        return self._database.run(op_factory) if self._is_prepared else self._first(self._database.run, op_factory)

    def _read(self, op_factory: OpFactory[T]) -> CoroutineType[Any, Any, T]:
        return self._database.read(op_factory) if self._is_prepared else self._first(self._database.read, op_factory)

    async def _first(self, method: Callable[[OpFactory[T]], Awaitable[T]], op_factory: OpFactory[T]) -> T:
        await self.prepare()
        return await method(op_factory)


def on_sqlite(database: Database | Path | str, node_id: str | None) -> tuple[Database, bool]:
    """A database and whether it was made here: of a file, or the one that was given."""
    if isinstance(database, str | Path):
        return SqliteDatabase(database, node_id=node_id), True
    return database, False


def to_seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def from_seconds(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def to_json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, allow_nan=False, separators=(",", ":"))


def from_json(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def facts_of(
    row: tuple[Any, ...], names: Sequence[str], *, times: Collection[str], json_values: Collection[str]
) -> dict[str, Any]:
    """The values of a row by the names of its columns; `times` become datetimes, `json_values` what they say."""
    facts: dict[str, Any] = {}
    for name, value in zip(names, row, strict=True):
        if name in times:
            facts[name] = from_seconds(value)
        else:
            facts[name] = from_json(value) if name in json_values else value
    return facts


def assignments(columns: str) -> str:
    """`column = ?` for each column of a list of ours."""
    return ", ".join(column + " = ?" for column in columns.split(", "))


def placeholders(columns: str) -> str:
    """As many `?` as there are columns in a list of ours."""
    return ", ".join("?" for _ in columns.split(", "))
