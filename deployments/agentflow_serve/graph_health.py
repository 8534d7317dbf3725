"""Whether the whole graph can answer: every deployment of the app has a replica that runs, or may start one."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from ray import serve
from ray.serve.schema import ApplicationStatus

CACHE_S = 1.0
RUNNING: Any = "RUNNING"
SCALED_TO_ZERO = "HEALTHY"
"""What Serve calls a deployment that has no replica and needs none: the next call starts one."""


class GraphNotReady(Exception):
    """Some deployments of the app cannot take calls now; the message names them."""


class GraphHealth:
    """Asks Serve's controller, at most once a second, because probes come from many sides."""

    def __init__(self, app_name: str) -> None:
        self._app_name = app_name
        self._lock = asyncio.Lock()
        self._asked = float("-inf")
        self._problem = ""

    async def check(self) -> None:
        """Return when the graph is ready; raises GraphNotReady."""
        async with self._lock:
            if time.monotonic() - self._asked >= CACHE_S:
                self._problem = await asyncio.to_thread(self._look)
                self._asked = time.monotonic()
        if self._problem:
            raise GraphNotReady(self._problem)

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
