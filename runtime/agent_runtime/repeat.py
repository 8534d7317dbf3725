"""What to do when a store does not answer: send a change again, since it carries its own id; look again later."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from runtime_core.clock import Clock
from runtime_core.errors import StoreUnavailableError

T = TypeVar("T")

logger = logging.getLogger(__name__)

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


class Patience:
    """How long whoever waits for a record looks past a store that is gone: `limit_s` at a time."""

    def __init__(self, clock: Clock, *, limit_s: float) -> None:
        self._clock = clock
        self._limit_s = limit_s
        self._gone_since: float | None = None

    def excuse(self, error: StoreUnavailableError) -> None:
        """Raises the error when the store has been gone for too long."""
        now = self._clock.monotonic()
        if self._gone_since is None:
            logger.warning("a store is gone; whoever waits looks again for %g s: %s", self._limit_s, error)
            self._gone_since = now
        if now - self._gone_since >= self._limit_s:
            raise error

    def renew(self) -> None:
        """The store has answered."""
        self._gone_since = None
