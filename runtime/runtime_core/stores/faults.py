"""A database that fails now and then, to prove that its callers survive it."""

from __future__ import annotations

from random import Random
from types import TracebackType
from typing import Self, TypeVar

from runtime_core.errors import StoreUnavailableError
from runtime_core.stores.database import Database
from runtime_core.stores.dialect import Dialect
from runtime_core.stores.sql import OpFactory

T = TypeVar("T")


class Faults:
    """Fails a share `rate` of all calls: half of them before, half after the work was done.

    The second half is the case that loses or doubles writes in practice: executed, then timed out.
    """

    def __init__(self, rng: Random, rate: float) -> None:
        self._rng = rng
        self._rate = rate
        self.count = 0

    def draw(self) -> bool:
        """Whether the answer of this call gets lost; raises if the call fails before it is made."""
        if self._rng.random() >= self._rate:
            return False
        self.count += 1
        if self._rng.random() < 0.5:
            raise StoreUnavailableError("Injected fault: no connection.")
        return True


class FaultyDatabase:
    """A Database with Faults."""

    def __init__(self, database: Database, rng: Random, rate: float) -> None:
        self._database = database
        self._faults = Faults(rng, rate)

    @property
    def faults(self) -> int:
        """How many there were."""
        return self._faults.count

    @property
    def dialect(self) -> Dialect:
        return self._database.dialect

    async def run(self, op_factory: OpFactory[T]) -> T:
        lose_answer = self._faults.draw()
        result = await self._database.run(op_factory)
        if lose_answer:
            raise StoreUnavailableError("Injected fault: executed, then timed out.", outcome_unknown=True)
        return result

    async def read(self, op_factory: OpFactory[T]) -> T:
        lose_answer = self._faults.draw()
        result = await self._database.read(op_factory)
        if lose_answer:
            raise StoreUnavailableError("Injected fault: read, then timed out.")
        return result

    async def close(self) -> None:
        await self._database.close()

    async def __aenter__(self) -> Self:
        await self._database.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._database.__aexit__(kind, error, trace)
