"""SQLite, the embedded default for one machine: durable, shared by its processes, no server.

Writes go through one thread that commits whatever is waiting as a group: a commit costs about 0.5 ms, and so
does one of 64 writes. Reads have a thread and a connection of their own; WAL lets them run beside the writer.
"""

from __future__ import annotations

import asyncio
import copy
from dataclasses import dataclass
from pathlib import Path
from types import CoroutineType, TracebackType
from typing import Any, Self, TypeVar

from runtime_core.errors import StoreCorruptError, StoreUnavailableError
from runtime_core.stores.dialect import SQLITE, Dialect
from runtime_core.stores.group_commit import GroupCommit, Snapshots
from runtime_core.stores.sql import OpFactory
from runtime_core.stores.sqlite_file import open_reader, open_writer
from runtime_core.stores.worker import Worker

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SqliteOptions:
    """`busy_timeout_s` bounds the wait for other processes; beyond `max_pending` operations callers wait."""

    busy_timeout_s: float = 5.0
    max_pending: int = 1024
    max_batch: int = 256


class SqliteDatabase:
    """A Database in one file. `node_id` names this machine; with None the file may be anywhere."""

    def __init__(self, path: Path | str, *, node_id: str | None = None, options: SqliteOptions | None = None) -> None:
        self._path = Path(path).absolute()
        self._options = options or SqliteOptions()
        patience_s = self._options.busy_timeout_s
        self._writes = GroupCommit(
            lambda: open_writer(self._path, node_id=node_id, patience_s=patience_s), patience_s=patience_s
        )
        self._reads = Snapshots(lambda: open_reader(self._path, patience_s=patience_s))
        self._opening = asyncio.Lock()
        self._workers: tuple[Worker, Worker] | None = None
        self._closed = False
        self._damage: StoreCorruptError | None = None

    @property
    def dialect(self) -> Dialect:
        return SQLITE

    @property
    def commits(self) -> int:
        """How many groups were committed by this object."""
        return self._writes.commits

    def run(self, op_factory: OpFactory[T]) -> CoroutineType[Any, Any, T]:
        return self._submit(op_factory, writes=True)

    def read(self, op_factory: OpFactory[T]) -> CoroutineType[Any, Any, T]:
        return self._submit(op_factory, writes=False)

    async def close(self) -> None:
        self._closed = True
        async with self._opening:
            workers, self._workers = self._workers, None
        if workers is None:
            return
        writer, reader = workers
        try:
            await reader.stop()
            await writer.stop()
        finally:
            reader.abandon()
            writer.abandon()

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _submit(self, op_factory: OpFactory[T], *, writes: bool) -> T:
        writer, reader = self._workers or await self._open()
        if self._damage is not None:
            raise copy.copy(self._damage) from self._damage
        try:
            return await (writer if writes else reader).submit(op_factory)
        except StoreCorruptError as error:
            self._damage = error  # writing on would make it worse
            raise

    async def _open(self) -> tuple[Worker, Worker]:
        async with self._opening:
            if self._closed:
                raise StoreUnavailableError(f"The database {self._path} is closed.", location=str(self._path))
            if self._workers is None:
                self._workers = await self._start()
            return self._workers

    async def _start(self) -> tuple[Worker, Worker]:
        limits = {"max_pending": self._options.max_pending, "max_batch": self._options.max_batch}
        writer = Worker(self._writes, name=f"writes {self._path.name}", **limits)
        reader = Worker(self._reads, name=f"reads {self._path.name}", **limits)
        try:
            await writer.start()
            await reader.start()
        except BaseException:
            writer.abandon()
            reader.abandon()
            raise
        return writer, reader
