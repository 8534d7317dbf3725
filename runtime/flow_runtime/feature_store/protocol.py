"""What a feature store does for a flow.

Values are JSON values; times go in as datetimes with a zone and come out as ISO-8601 text in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from flow_runtime.feature_store.names import Named

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows are read: a group, or a view (a named selection of a group's columns)."""

    named: Named
    is_view: bool = False

    def __str__(self) -> str:
        return f"the feature {'view' if self.is_view else 'group'} '{self.named}'"


@dataclass(frozen=True, slots=True)
class Read:
    """One row wanted: that of `key`, the latest one, or the latest at or before `as_of`."""

    key: Mapping[str, Any]
    as_of: datetime | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """At most `limit` rows of a group whose columns equal `filters`, those most like `vector` first."""

    vector: Sequence[float]
    limit: int
    filters: Mapping[str, Any]


class FeatureStore(Protocol):
    """One connection. Every method raises OperationFailed with a sentence that says what is wrong."""

    async def prepare(self) -> None:
        """Connect now, so that the first call does not pay for it. Raises FeatureStoreInvalid."""
        ...

    async def read(self, source: Source, read: Read, features: tuple[str, ...] | None) -> Row:
        """One row with these columns, or all. Reads that arrive together are answered together.

        Raises RowNotFound when there is no such row.
        """
        ...

    async def write(self, group: Named, rows: Sequence[Mapping[str, Any]], event_time: datetime | None) -> None:
        """Add rows, all or none. One with the key and event time of an earlier row takes its place.

        `event_time` is that of rows without their own.
        """
        ...

    async def search(self, group: Named, search: Search) -> list[Row]:
        """The rows found, best first, each with its `score`; more is more alike."""
        ...

    async def aclose(self) -> None: ...


@runtime_checkable
class ModelRegistry(Protocol):
    """The power of some feature stores to keep models as well."""

    async def get_model(self, name: str, version: int | None) -> Any:
        """A handle to a model: of that version, or the latest. Raises OperationFailed, RowNotFound."""
        ...
