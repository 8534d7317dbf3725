"""Writing once although the answer was lost: every change carries its own id, so sending it again is safe."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from runtime_core.clock import Clock
from runtime_core.errors import StoreUnavailableError

T = TypeVar("T")

TRIES = 3
PAUSE_S = 0.05


async def until_known(call: Callable[[], Awaitable[T]], clock: Clock) -> T:
    """`call`, and again while the store cannot say whether it was done; StoreUnavailableError after TRIES of them."""
    for number in range(1, TRIES):
        try:
            return await call()
        except StoreUnavailableError as exc:
            if not exc.outcome_unknown:
                raise
        await clock.sleep(PAUSE_S * number)
    return await call()
