"""The simulated model as a Serve deployment: a real HTTP server inside a replica, for flows without keys.

Only the replica knows its address, and a restarted one has another: who calls the model asks here first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import ray
from ray.serve.handle import DeploymentHandle

LOOPBACK = "127.0.0.1"


class SimReplica:
    """Serves the simulated model on loopback, or on the node's own address once the cluster has several nodes."""

    async def __init__(self, script: dict[str, Any] | None) -> None:
        self._script = script
        self._host = _host()
        self._server = await self._serve()

    async def address(self) -> str:
        """The base URL for OpenAI clients, such as `http://127.0.0.1:41234/v1`."""
        if (host := _host()) != self._host:
            await self._server.__aexit__(None, None, None)
            self._host = host
            self._server = await self._serve()
        return self._server.openai_base

    async def _serve(self) -> Any:
        from llmhub_runtime.sim import SimServer
        from llmhub_runtime.sim.script import SimScript

        script = None if self._script is None else SimScript.model_validate(self._script)
        return await SimServer(host=self._host, port=0, script=script).__aenter__()

    async def __del__(self) -> None:
        await self._server.__aexit__(None, None, None)


def sim_locator(sim: DeploymentHandle | None) -> Callable[[], Awaitable[str]] | None:
    """How a replica finds the simulated model, if the app has one."""
    if sim is None:
        return None

    async def locate() -> str:
        return await sim.address.remote()

    return locate


def _host() -> str:
    alive = [node for node in ray.nodes() if node["Alive"]]
    return LOOPBACK if len(alive) <= 1 else ray.util.get_node_ip_address()
