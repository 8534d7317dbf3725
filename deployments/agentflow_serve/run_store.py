"""The run store of a process: one database for everything that is kept in it."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path

from runtime_core.stores.database import Database


class RunStore:
    """The run store of this process, opened by whoever needs it first and closed with `stack`."""

    def __init__(self, stack: AsyncExitStack, url: str) -> None:
        self._stack = stack
        self._url = url
        self._opening = asyncio.Lock()
        self._database: Database | None = None

    async def database(self) -> Database:
        async with self._opening:
            if self._database is None:
                from runtime_core.stores.url import open_database

                self._database = await self._stack.enter_async_context(open_database(self._url, node_id=_machine()))
            return self._database


def _machine() -> str:
    """A name of this machine that a restart does not change; a pod's host name would change."""
    try:
        return Path("/etc/machine-id").read_text().strip() or socket.gethostname()
    except OSError:
        return socket.gethostname()
