"""Whether a flow can take requests: asks its health check, with a bound on time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

HealthCheck = Callable[[], Awaitable[None]]


class Readiness:
    """`check` raises while the flow is not ready; without one it always is. For one event loop."""

    def __init__(self, check: HealthCheck | None, *, timeout_s: float) -> None:
        self._check = check
        self._timeout_s = timeout_s
        self._begun = check is None
        self._ready = True

    async def now(self) -> bool:
        """Asks. For probes."""
        return self._check is None or await self._ask(self._check) is True

    async def begun(self) -> bool:
        """Whether the flow was ready at least once. For requests.

        From then on a node without a replica for a moment is a matter of waiting or of a run that fails, which
        the graph knows better than a check that is a second old. A check that does not answer in time turns
        nobody away either.
        """
        return self._begun or self._check is None or await self._ask(self._check) is not False

    async def _ask(self, check: HealthCheck) -> bool | None:
        """What the check says; None when it did not say anything in time."""
        bound = asyncio.timeout(self._timeout_s)
        try:
            async with bound:
                await check()
        except TimeoutError:
            logger.warning("The health check did not answer in %g s", self._timeout_s)
            return None
        except Exception as exc:  # noqa: BLE001 - whatever a health check raises means "not ready"
            if self._ready:
                logger.warning("The flow is not ready: %r", exc)
            self._ready = False
        else:
            self._ready = self._begun = True
        return self._ready
