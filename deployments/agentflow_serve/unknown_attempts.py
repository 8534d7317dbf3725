"""How many model calls nobody can tell the end of, whoever found that out: asked of the run store now and then."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from runtime_core.clock import Clock
from runtime_core.errors import StoreError

WINDOW_S = 300.0
EVERY_S = 30.0


class Unknowns(Protocol):
    async def unknown_in(self, seconds: float) -> int:
        """How many attempts have ended as unknown in the last `seconds`."""
        ...


async def count_unknown(ledger: Unknowns, tell: Callable[[int], None], *, clock: Clock) -> None:
    """Until it is cancelled. While the store does not answer, what was told last stands."""
    while True:
        with suppress(StoreError):
            tell(await ledger.unknown_in(WINDOW_S))
        await clock.sleep(EVERY_S)
