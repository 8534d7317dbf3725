"""`local:` - a folder of parquet files, read and written by DuckDB in one thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import Any, TypeVar

from flow_runtime.errors import OperationFailed
from flow_runtime.feature_store.batcher import Batcher
from flow_runtime.feature_store.local_engine import LocalEngine
from flow_runtime.feature_store.local_values import microseconds
from flow_runtime.feature_store.names import Named
from flow_runtime.feature_store.protocol import Read, Row, Search, Source
from runtime_core.clock import Clock
from runtime_core.ids import IdSource

Result = TypeVar("Result")
Columns = tuple[Source, tuple[str, ...] | None]


class LocalFeatureStore:
    """A FeatureStore. What other processes add is seen by the next query."""

    def __init__(self, open_engine: Callable[[], LocalEngine], *, clock: Clock, ids: IdSource) -> None:
        self._clock = clock
        self._ids = ids
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feature-store")
        # the thread does one thing after the other, so that whatever it does next finds the engine there
        self._engine: Future[LocalEngine] = self._thread.submit(open_engine)
        self._readers: dict[Columns, Batcher[Read, Row]] = {}

    async def prepare(self) -> None:
        await asyncio.shield(asyncio.wrap_future(self._engine))

    async def read(self, source: Source, read: Read, features: tuple[str, ...] | None) -> Row:
        return await self._reader((source, features)).ask(read)

    async def write(self, group: Named, rows: Sequence[Mapping[str, Any]], event_time: datetime | None) -> None:
        part = f"{microseconds(self._clock.now()):020d}-{self._ids.new('part')}"
        time = None if event_time is None else microseconds(event_time)
        await self._in_thread(lambda engine: engine.write(group, rows, time, part))

    async def search(self, group: Named, search: Search) -> list[Row]:
        return await self._in_thread(lambda engine: engine.search(group, search))

    async def aclose(self) -> None:
        for reader in list(self._readers.values()):
            await reader.aclose()
        if self._engine.done() and self._engine.exception() is None:
            self._engine.result().interrupt()
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)
        if not self._engine.cancelled() and self._engine.exception() is None:
            self._engine.result().close()

    def _reader(self, columns: Columns) -> Batcher[Read, Row]:
        if columns not in self._readers:

            async def read_all(reads: Sequence[Read]) -> Sequence[Row | OperationFailed]:
                return await self._in_thread(lambda engine: engine.read(columns[0], reads, columns[1]))

            self._readers[columns] = Batcher(read_all)
        return self._readers[columns]

    async def _in_thread(self, work: Callable[[LocalEngine], Result]) -> Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: work(self._engine.result()))
