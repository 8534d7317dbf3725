"""`memory:` - the same SQL on a private SQLite database in memory, for one process and for tests.

Operations run inline: there is no thread and no commit to wait for.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self, TypeVar

from runtime_core.errors import StoreUnavailableError
from runtime_core.stores.connection import Connection
from runtime_core.stores.dialect import SQLITE, Dialect
from runtime_core.stores.one_after_another import OneAfterAnother
from runtime_core.stores.sql import OpFactory

T = TypeVar("T")

MAX_BYTES = 2**30
_YIELD_EVERY = 16


class MemoryDatabase:
    """A Database that ends with its process. A write past `max_bytes` of pages raises StoreFullError."""

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self._connection: Connection | None = Connection.in_memory(max_bytes)
        self._operations = OneAfterAnother(self._connection)
        self._calls = 0

    @property
    def dialect(self) -> Dialect:
        return SQLITE

    async def run(self, op_factory: OpFactory[T]) -> T:
        try:
            return self._open().run(op_factory)
        finally:
            await self._let_others_run()

    async def read(self, op_factory: OpFactory[T]) -> T:
        try:
            return self._open().look(op_factory)
        finally:
            await self._let_others_run()

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _open(self) -> OneAfterAnother:
        if self._connection is None:
            raise StoreUnavailableError("The store in memory is closed.", location="memory:")
        return self._operations

    async def _let_others_run(self) -> None:
        """Without this a loop that polls the store would never let another task run."""
        self._calls += 1
        if self._calls % _YIELD_EVERY == 0:
            await asyncio.sleep(0)
