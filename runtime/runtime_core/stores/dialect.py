"""What differs between databases: the names of column types. Everything else is portable SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Dialect:
    """Column types by the names that migrations use in braces: {int}, {real}, {text}, {json}, {bytes}."""

    name: str
    types: Mapping[str, str]


SQLITE = Dialect(
    name="sqlite",
    types=MappingProxyType(
        {"int": "INTEGER", "real": "REAL", "text": "TEXT", "json": "TEXT", "bytes": "BLOB", "time": "REAL"}
    ),
)
