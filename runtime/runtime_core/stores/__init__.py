"""The base of every store: operations as generators of SQL, and the databases that run them.

`sql` says what an operation is, `scope` whose rows it may touch, `database` what runs one, `url` which databases
there are, `migrations` how tables come to be; `keyed` is a store of its own. A name loads the module it comes from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentflow.lazy import lazy_exports

if TYPE_CHECKING:
    from runtime_core.stores.database import Database
    from runtime_core.stores.keyed import Bucket, Entry, KeyedStore
    from runtime_core.stores.migrations import Migration, migrate
    from runtime_core.stores.scope import everywhere, in_scope
    from runtime_core.stores.sql import Op, OpFactory, Rows, Sql, SqlValue
    from runtime_core.stores.url import open_database

_HOMES = {
    "database": ("Database",),
    "keyed": ("Bucket", "Entry", "KeyedStore"),
    "migrations": ("Migration", "migrate"),
    "scope": ("everywhere", "in_scope"),
    "sql": ("Op", "OpFactory", "Rows", "Sql", "SqlValue"),
    "url": ("open_database",),
}

__all__ = [
    "Bucket",
    "Database",
    "Entry",
    "KeyedStore",
    "Migration",
    "Op",
    "OpFactory",
    "Rows",
    "Sql",
    "SqlValue",
    "everywhere",
    "in_scope",
    "migrate",
    "open_database",
]

__getattr__ = lazy_exports(__name__, _HOMES)
