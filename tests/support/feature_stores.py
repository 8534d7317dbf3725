"""Local feature stores for tests: a folder with groups, and operations that run on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from flow_runtime.feature_store.local import LocalFeatureStore
from flow_runtime.feature_store.local_engine import LocalEngine
from flow_runtime.feature_store.names import Named
from runtime_core.clock import Clock, SystemClock
from runtime_core.ids import RandomIds

SHOPPERS = {
    "keys": ["user_id"],
    "event_time": "at",
    "columns": {"user_id": "string", "tier": "string", "orders": "integer", "baskets": "json", "at": "timestamp"},
}


def add_group(folder: Path, name: str = "shoppers_v2", schema: Mapping[str, Any] | None = None) -> Named:
    """A group without rows."""
    (folder / name).mkdir()
    (folder / name / "group.yaml").write_text(yaml.safe_dump(dict(schema or SHOPPERS), sort_keys=False))
    stem, _, version = name.rpartition("_v")
    return Named(stem, int(version))


class CountingEngine(LocalEngine):
    """Says how many reads of how many rows there were."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.queries: list[int] = []

    def read(self, source: Any, reads: Any, features: Any) -> Any:
        self.queries.append(len(reads))
        return super().read(source, reads, features)


@asynccontextmanager
async def local_store(folder: Path, *, clock: Clock | None = None) -> AsyncIterator[LocalFeatureStore]:
    store = LocalFeatureStore(lambda: LocalEngine(str(folder)), clock=clock or SystemClock(), ids=RandomIds())
    try:
        yield store
    finally:
        await store.aclose()
