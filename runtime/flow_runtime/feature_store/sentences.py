"""Sentences that every kind of feature store has to say."""

from __future__ import annotations

from collections.abc import Iterable

from flow_runtime.errors import RowNotFound
from flow_runtime.feature_store.protocol import Read, Source

LONGEST = 500
MOST_NAMES = 12


def not_found(source: Source, read: Read) -> RowNotFound:
    key = ", ".join(f"{column} {value!r}" for column, value in read.key.items())
    when = f" as of {read.as_of.isoformat()}" if read.as_of is not None else ""
    return RowNotFound(f"{source} has no row for {key}{when}"[:LONGEST])


def listed(names: Iterable[object]) -> str:
    return ", ".join(f"'{str(name)[:64]}'" for name in list(names)[:MOST_NAMES])
