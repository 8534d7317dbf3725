"""What is used of asyncpg, and a pool of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from runtime_core.stores.postgres_errors import DRIVER_ERRORS

# Servers have few connections, and a served flow has many processes.
IDLE_S = 60.0


class DriverType(Protocol):
    @property
    def name(self) -> str: ...


class DriverStatement(Protocol):
    def get_parameters(self) -> Sequence[DriverType]: ...


class DriverConnection(Protocol):
    """A connection that a pool lends."""

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str: ...

    async def fetch(self, query: str, *args: Any, timeout: float | None = None) -> Sequence[Sequence[Any]]: ...

    async def prepare(self, query: str, *, timeout: float | None = None) -> DriverStatement: ...

    def terminate(self) -> None: ...


class DriverPool(Protocol):
    """`asyncpg.Pool`."""

    async def acquire(self, *, timeout: float | None = None) -> DriverConnection: ...

    async def release(self, connection: DriverConnection, *, timeout: float | None = None) -> None: ...

    async def close(self) -> None: ...

    def terminate(self) -> None: ...


async def open_pool(url: str, *, connections: int, connect_timeout_s: float) -> DriverPool:
    """A pool that connects when it is used, and whose users leave nothing on a connection that had to be reset."""
    pool: Any = asyncpg.create_pool(  # pyright: ignore[reportUnknownMemberType]
        url,
        min_size=0,
        max_size=connections,
        max_inactive_connection_lifetime=IDLE_S,
        timeout=connect_timeout_s,
        reset=_nothing_to_reset,
        server_settings={"application_name": "agentflow"},
    )
    return await pool


async def close_pool(pool: DriverPool, *, timeout_s: float) -> None:
    """Close it, if need be without the server."""
    try:
        async with asyncio.timeout(timeout_s):
            await pool.close()
    except DRIVER_ERRORS:
        pool.terminate()


async def _nothing_to_reset(connection: object) -> None:
    """Instead of a round trip for every operation."""
