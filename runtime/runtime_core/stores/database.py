"""The one interface under every store: it runs an operation as one transaction."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self, TypeVar

from runtime_core.stores.dialect import Dialect
from runtime_core.stores.sql import OpFactory

T = TypeVar("T")


class Database(Protocol):
    """Runs operations; `agent_runtime.testing.DatabaseContract` is its contract.

    An object belongs to the event loop that first used it. Every method raises an error of the StoreError
    tree, or whatever the operation itself raised.
    """

    @property
    def dialect(self) -> Dialect:
        """Which column types migrations get."""
        ...

    async def run(self, op_factory: OpFactory[T]) -> T:
        """Run the operation as one serializable transaction; its result is durable when this returns.

        Whose rows it may touch is what `scope.in_scope` says; PostgreSQL holds it to that, in `read` too.
        An operation that raises changes nothing. The factory may be called more than once and the operation
        may run on another thread, so both touch nothing but their statements. Once the store is open,
        cancelling the caller abandons the answer, never the write. After StoreUnavailableError with
        `outcome_unknown` the write may be stored or not: repeat it with the same ids.
        """
        ...

    async def read(self, op_factory: OpFactory[T]) -> T:
        """Run the operation on one consistent snapshot that includes every write acknowledged before.

        A statement that would change something raises StoreError.
        """
        ...

    async def close(self) -> None:
        """Finish what was accepted, then let go of everything. A second close does nothing."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
