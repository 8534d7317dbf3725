"""The simulated model as a Serve deployment: a real HTTP server inside a replica, for flows without keys.

Only the replica knows its address, and a restarted one has another: who calls the model asks here first.
"""

from __future__ import annotations

import asyncio
from typing import Any

import ray

from llmhub_runtime.sim import SimServer, parse_script

LOOPBACK = "127.0.0.1"


class SimReplica:
    """Serves the simulated model on loopback, or on the node's own address once the cluster has several nodes."""

    async def __init__(self, script: dict[str, Any] | None) -> None:
        self._script = parse_script(script)
        self._moving = asyncio.Lock()
        self._server = await self._serve()

    async def address(self) -> str:
        """The base URL for OpenAI clients, such as `http://127.0.0.1:41234/v1`."""
        async with self._moving:
            if _host() != self._host:
                await self._server.stop()
                self._server = await self._serve()
        return self._server.openai_base

    async def _serve(self) -> SimServer:
        self._host = _host()
        server = SimServer(host=self._host, port=0, script=self._script, read_only=True)
        await server.start()
        return server

    async def __del__(self) -> None:
        await self._server.stop()


def _host() -> str:
    alive = [node for node in ray.nodes() if node["Alive"]]
    return LOOPBACK if len(alive) <= 1 else ray.util.get_node_ip_address()
