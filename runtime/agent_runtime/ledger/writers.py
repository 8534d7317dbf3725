"""Where the ledger writes: one implementation in SQL, under the names of its databases."""

from __future__ import annotations

from pathlib import Path
from types import CoroutineType
from typing import Any, TypeVar

from agent_runtime.ledger.schema import MIGRATIONS
from agent_runtime.postgres import on_postgres
from agent_runtime.stores import SqlStore, on_sqlite
from runtime_core.stores.database import Database
from runtime_core.stores.memory import MemoryDatabase
from runtime_core.stores.sql import OpFactory

T = TypeVar("T")


class SqlLedgerWriter(SqlStore):
    """The ledger's tables on a database, which stays its caller's to close."""

    COMPONENT = "runtime_ledger"
    MIGRATIONS = MIGRATIONS

    def run(self, op_factory: OpFactory[T]) -> CoroutineType[Any, Any, T]:
        """One operation of `ops`, as one transaction."""
        return self._run(op_factory)

    def read(self, op_factory: OpFactory[T]) -> CoroutineType[Any, Any, T]:
        """One operation that changes nothing."""
        return self._read(op_factory)


class InMemoryLedgerWriter(SqlLedgerWriter):
    """For one process and for tests: the ledger ends with it."""

    def __init__(self) -> None:
        super().__init__(MemoryDatabase(), owns=True)


class SqliteLedgerWriter(SqlLedgerWriter):
    """In a file, for all processes of one machine; or on a database that is open already."""

    def __init__(self, database: Database | Path | str, *, node_id: str | None = None) -> None:
        opened, owns = on_sqlite(database, node_id)
        super().__init__(opened, owns=owns)


class PostgresLedgerWriter(SqlLedgerWriter):
    """On a `postgresql://` address, on an `asyncpg.Pool`, which stays its owner's, or on a database that is open."""

    def __init__(self, server: Any) -> None:
        database, owns = on_postgres(server)
        super().__init__(database, owns=owns)
