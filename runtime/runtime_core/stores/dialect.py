"""What differs between databases: the names of column types. Everything else is portable SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from runtime_core.stores.row_security import PROTECTION


@dataclass(frozen=True, slots=True)
class Dialect:
    """Column types by the names that migrations use in braces: {int}, {real}, {text}, {json}, {bytes}, {time}.

    {time} holds seconds since the epoch, to the microsecond. {json} keeps its text as it is. The statements of
    `alone` come first in a transaction that no other one with them may run beside; those of `protection` make `{table}`
    show an operation the rows of its own scopes only.
    """

    name: str
    types: Mapping[str, str]
    alone: tuple[str, ...] = ()
    protection: tuple[str, ...] = ()


SQLITE = Dialect(
    name="sqlite",
    types=MappingProxyType(
        {"int": "INTEGER", "real": "REAL", "text": "TEXT", "json": "TEXT", "bytes": "BLOB", "time": "REAL"}
    ),
)

POSTGRES = Dialect(
    name="postgresql",
    types=MappingProxyType(
        {
            "int": "BIGINT",
            "real": "DOUBLE PRECISION",
            "text": 'TEXT COLLATE "C"',  # the order of SQLite; one that no update of the system changes
            "json": "JSON",  # not JSONB, which sorts keys, rounds numbers and refuses half a surrogate pair
            "bytes": "BYTEA",
            "time": "TIMESTAMPTZ",
        }
    ),
    # A snapshot per statement: whoever waited for the lock must see what its holder did. The number is ours.
    alone=("SET TRANSACTION ISOLATION LEVEL READ COMMITTED", "SELECT pg_advisory_xact_lock(7022641093811514)"),
    protection=PROTECTION,
)
