"""The Lua beside this module, run on a server: what has to happen there in one go."""

from __future__ import annotations

from importlib import resources
from typing import Any

from redis.asyncio import Redis


class Script:
    """`name` is that of the file."""

    def __init__(self, name: str) -> None:
        self._text = resources.files("agent_runtime.redis").joinpath(f"{name}.lua").read_text()

    async def run(self, client: Redis, key: str, *arguments: str | int) -> Any:
        running: Any = client.eval(self._text, 1, key, *arguments)  # typed for both kinds of client
        return await running
