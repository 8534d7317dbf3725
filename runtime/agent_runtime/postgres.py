"""Stores on a PostgreSQL server, for several machines, under the names that say so."""

from __future__ import annotations

from typing import Any

from agent_runtime.actions.sql_store import SqlActionStore
from agent_runtime.jobs.sql_store import SqlJobStore
from runtime_core.call_log.keys import MAX_KEYS
from runtime_core.errors import StoreUrlError
from runtime_core.stores.database import Database
from runtime_core.stores.url import is_postgres, open_database


class PostgresJobStore(SqlJobStore):
    """On a `postgresql://` address, on an `asyncpg.Pool`, which stays its owner's, or on a database that is open."""

    def __init__(self, server: Any, *, max_keys: int = MAX_KEYS) -> None:
        database, owns = on_postgres(server)
        super().__init__(database, owns=owns, max_keys=max_keys)


class PostgresActionStore(SqlActionStore):
    """On a `postgresql://` address, on an `asyncpg.Pool`, which stays its owner's, or on a database that is open."""

    def __init__(self, server: Any) -> None:
        database, owns = on_postgres(server)
        super().__init__(database, owns=owns)


def on_postgres(server: Any) -> tuple[Database, bool]:
    """A database and whether it was made here. Raises StoreUrlError for an address of something else."""
    if isinstance(server, str):
        if not is_postgres(server):
            raise StoreUrlError("A store on PostgreSQL has an address that begins with postgresql://.")
        return open_database(server), True
    if hasattr(server, "dialect"):
        return server, False
    from runtime_core.stores.postgres import PostgresDatabase

    return PostgresDatabase(server), True
