"""Whether a flow can take requests: asks its health check, with a bound on time and on how often."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

HealthCheck = Callable[[], Awaitable[None]]
FRESH_S = 1.0


class Readiness:
    """`check` raises while the flow is not ready; without one it always is. For one event loop."""

    def __init__(
        self, check: HealthCheck | None, *, timeout_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._check = check
        self._timeout_s = timeout_s
        self._clock = clock
        self._asking = asyncio.Lock()
        self._known = True
        self._known_at: float | None = None

    async def now(self) -> bool:
        """Asks. For probes."""
        if self._check is None:
            return True
        async with self._asking:
            return await self._ask(self._check)

    async def lately(self) -> bool:
        """What was true within the last second. For requests: the check must not become a part of each."""
        if self._check is None:
            return True
        async with self._asking:
            if self._known_at is not None and self._clock() - self._known_at < FRESH_S:
                return self._known
            return await self._ask(self._check)

    async def _ask(self, check: HealthCheck) -> bool:
        try:
            async with asyncio.timeout(self._timeout_s):
                await check()
        except Exception as exc:  # noqa: BLE001 - whatever a health check raises means "not ready"
            if self._known or self._known_at is None:
                logger.warning("The flow is not ready: %r", exc)
            ready = False
        else:
            ready = True
        self._known, self._known_at = ready, self._clock()
        return ready
