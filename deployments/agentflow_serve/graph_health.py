"""Whether the whole graph can answer: every deployment of the app has a replica that runs, or may start one."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus

logger = logging.getLogger(__name__)

CACHE_S = 1.0
PATIENCE_S = 0.5
RUNNING: Any = "RUNNING"
SCALED_TO_ZERO = "HEALTHY"
"""What Serve calls a deployment that has no replica and needs none: the next call starts one."""


class GraphNotReady(Exception):
    """Some deployments of the app cannot take calls now; the message names them."""


class GraphHealth:
    """Asks Serve's controller, at most once a second, because probes come from many sides.

    A controller that dies or hangs does not stop the graph: while it does not answer, its last word stands.
    """

    def __init__(self, app_name: str) -> None:
        self._app_name = app_name
        self._asking: asyncio.Task[None] | None = None
        self._asked = float("-inf")
        self._problem: str | None = None

    async def check(self) -> None:
        """Return when the graph is ready; raises GraphNotReady."""
        if self._asking is None and time.monotonic() - self._asked >= CACHE_S:
            self._asking = asyncio.create_task(self._ask())
        if self._asking is not None:
            await asyncio.wait([self._asking], timeout=None if self._problem is None else PATIENCE_S)
        if self._problem:
            raise GraphNotReady(self._problem)

    async def _ask(self) -> None:
        try:
            self._problem = await asyncio.to_thread(self._look)
        except (RayError, RayServeException, TimeoutError):
            logger.warning("Serve's controller does not answer", exc_info=True)
        finally:
            self._asked = time.monotonic()
            self._asking = None

    def _look(self) -> str:
        app = serve.status().applications.get(self._app_name)
        if app is None:
            return f"the app '{self._app_name}' is not deployed"
        if app.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.DELETING):
            return f"the app '{self._app_name}' is {app.status.value}: {app.message}"
        idle = [
            name
            for name, deployment in app.deployments.items()
            if not deployment.replica_states.get(RUNNING) and deployment.status != SCALED_TO_ZERO
        ]
        return f"no replica is running for: {', '.join(sorted(idle))}" if idle else ""
