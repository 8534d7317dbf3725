"""Calls to a Redis that one can do without: bounded in time, and none for a while after trouble."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.exceptions import RedisError

from runtime_core.clock import Clock

T = TypeVar("T")

logger = logging.getLogger(__name__)

TROUBLE = (RedisError, OSError)  # TimeoutError is an OSError

PAUSE_S = 1.0


class Lossy:
    """`what` names the use in the log, which hears of trouble when it begins and when it is over."""

    def __init__(self, what: str, *, clock: Clock, timeout_s: float) -> None:
        self._what = what
        self._clock = clock
        self._timeout_s = timeout_s
        self._again_at: float | None = None

    async def call(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        """The answer, or None because Redis is in trouble."""
        if self._again_at is not None and self._clock.monotonic() < self._again_at:
            return None
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await ask()
        except TROUBLE as error:
            if self._again_at is None:
                logger.warning("%s: Redis is not there (%s); going on without it", self._what, type(error).__name__)
            self._again_at = self._clock.monotonic() + PAUSE_S
            return None
        if self._again_at is not None:
            logger.info("%s: Redis is back", self._what)
            self._again_at = None
        return answer
