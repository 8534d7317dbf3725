"""The address of a store in a configuration becomes a database."""

from __future__ import annotations

from pathlib import Path

from runtime_core.errors import StoreUrlError
from runtime_core.stores.database import Database

DEFAULT_STORE = "sqlite:///agentflow.sqlite"
"""The run store where nobody names one: a file in the directory in which the process was started."""
MEMORY = "memory:"
"""A store that ends with its process."""

_FORMS = "memory:, sqlite:///relative.db, sqlite:////absolute.db, postgresql://user:password@host:5432/database"


def open_database(url: str, *, node_id: str | None = None) -> Database:
    """The database at `url`; it opens at its first use, or with `async with`.

    `node_id` names this machine: an SQLite file remembers its first one and refuses any other. Raises
    StoreUrlError for an address that is none of memory:, sqlite:///relative.db, sqlite:////absolute.db and
    postgresql://user:password@host:5432/database, and for that one where the extra `postgres` is missing.
    """
    if url == MEMORY:
        from runtime_core.stores.memory import MemoryDatabase

        return MemoryDatabase()
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        from runtime_core.stores.sqlite import SqliteDatabase

        return SqliteDatabase(sqlite_path(url), node_id=node_id)
    if is_postgres(url):
        return _postgres(url)
    # Never show the rest of an address: it may hold a password.
    raise StoreUrlError(f"The store address begins with {scheme[:20]!r}; it must be one of {_FORMS}.")


def is_postgres(url: str) -> bool:
    """Whether it is the address of a PostgreSQL server."""
    return url.partition(":")[0] in ("postgresql", "postgres")


def _postgres(url: str) -> Database:
    try:
        from runtime_core.stores.postgres import PostgresDatabase
    except ModuleNotFoundError as error:
        raise StoreUrlError(
            "A store on PostgreSQL needs asyncpg, which is not installed: pip install 'agentflow-serve[postgres]'."
        ) from error
    return PostgresDatabase(url)


def sqlite_path(url: str) -> Path:
    """The file that an SQLite address names. Raises StoreUrlError."""
    prefix = "sqlite:///"
    name = url.removeprefix(prefix)
    if not url.startswith(prefix) or name in ("", "/") or name.endswith("/"):
        raise StoreUrlError(
            f"The store address {url[:80]!r} names no file; write sqlite:///relative.db or sqlite:////absolute.db."
        )
    if name.startswith((":", "file:")) or "?" in name or "\0" in name:
        raise StoreUrlError(
            f"The store address {url[:80]!r} is not a plain file name; for a store in memory write memory:."
        )
    return Path(name)
