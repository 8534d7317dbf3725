"""`hopsworks:` - a project of a Hopsworks feature store and its model registry, every call in a thread."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from datetime import datetime
from typing import Any, TypeVar

from flow_runtime.errors import FlowRuntimeError, OperationFailed
from flow_runtime.feature_store.batcher import Batcher
from flow_runtime.feature_store.hopsworks_client import HopsworksClient
from flow_runtime.feature_store.names import Named
from flow_runtime.feature_store.protocol import Read, Row, Search, Source

THREADS = 4

Result = TypeVar("Result")
Columns = tuple[Source, tuple[str, ...] | None]


class HopsworksFeatureStore:
    """A FeatureStore and a ModelRegistry. `connect` blocks; it is called once, in a thread."""

    def __init__(self, connect: Callable[[], HopsworksClient]) -> None:
        self._connect = connect
        self._client: asyncio.Task[HopsworksClient] | None = None
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="hopsworks")
        self._readers: dict[Columns, Batcher[Read, Row]] = {}
        self._turns: defaultdict[tuple[str, Any], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def prepare(self) -> None:
        await self._connected()

    async def read(self, source: Source, read: Read, features: tuple[str, ...] | None) -> Row:
        return await self._reader((source, features)).ask(read)

    async def write(self, group: Named, rows: Sequence[Mapping[str, Any]], event_time: datetime | None) -> None:
        await self._do(("write", group), lambda client: client.write(group, rows, event_time))

    async def search(self, group: Named, search: Search) -> list[Row]:
        return await self._do(("search", group), lambda client: client.search(group, search))

    async def get_model(self, name: str, version: int | None) -> Any:
        return await self._do(("model", name), lambda client: client.get_model(name, version))

    async def aclose(self) -> None:
        for reader in list(self._readers.values()):
            await reader.aclose()
        if self._client is not None:
            self._client.cancel()
        # the client offers no way to interrupt a call; one that runs ends by itself
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _reader(self, columns: Columns) -> Batcher[Read, Row]:
        if columns not in self._readers:
            source, features = columns

            async def read_all(reads: Sequence[Read]) -> Sequence[Row | OperationFailed]:
                return await self._do(("read", source), lambda client: client.read(source, reads, features))

            self._readers[columns] = Batcher(read_all)
        return self._readers[columns]

    async def _do(self, handle: tuple[str, Any], work: Callable[[HopsworksClient], Result]) -> Result:
        """Calls with one handle go one after the other: the client does not say that it may be otherwise."""
        client = await self._connected()
        async with self._turns[handle]:
            return await self._in_thread(lambda: work(client))

    async def _connected(self) -> HopsworksClient:
        if self._client is None or (self._client.done() and (self._client.cancelled() or self._client.exception())):
            # a context of its own: Serve cancels what runs in that of a caller who goes away
            self._client = asyncio.create_task(self._in_thread(self._connect), context=Context())
        return await asyncio.shield(self._client)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except FlowRuntimeError:
            raise
        except Exception as exc:
            # the client has no root of its errors, and lets through those of the libraries that it uses
            raise OperationFailed(f"Hopsworks: {type(exc).__name__}: {exc}"[:500]) from exc
