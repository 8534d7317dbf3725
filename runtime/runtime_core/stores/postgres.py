"""PostgreSQL, for stores that several machines share: `postgresql://user@host:5432/database`, or an asyncpg pool.

Transactions are serializable; what collides is tried again. A server that restarts is waited for, a few seconds,
and found again without help. Needs the extra `postgres`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import parse_qs, urlsplit

from runtime_core.errors import StoreUnavailableError, StoreUrlError
from runtime_core.stores.dialect import POSTGRES, Dialect
from runtime_core.stores.postgres_driver import DriverConnection, DriverPool, close_pool, open_pool
from runtime_core.stores.postgres_group import Engine, Reads, Writes
from runtime_core.stores.postgres_lanes import LaneOptions, Lanes
from runtime_core.stores.postgres_session import Form, Session
from runtime_core.stores.sql import Op, OpFactory, Sql

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PostgresOptions:
    """`patience_s` bounds how long an operation waits for its turn on a connection, `command_timeout_s` each
    statement; `write_connections` and `read_connections` are per process."""

    connect_timeout_s: float = 3.0
    command_timeout_s: float = 10.0
    patience_s: float = 5.0
    write_connections: int = 4
    read_connections: int = 4
    max_batch: int = 64


class PostgresDatabase:
    """A Database on a server. A pool that is given stays its owner's to close."""

    def __init__(
        self, server: str | DriverPool, *, options: PostgresOptions | None = None, rng: Random | None = None
    ) -> None:
        self._server = server
        self._options = options or PostgresOptions()
        self._location = location_of(server) if isinstance(server, str) else "the given PostgreSQL pool"
        self._writes = Writes(rng or Random())
        self._forms: dict[str, Form] = {}
        self._opening = asyncio.Lock()
        self._pool: DriverPool | None = None
        self._lanes: tuple[Lanes, Lanes] | None = None
        self._closed = False

    @property
    def dialect(self) -> Dialect:
        return POSTGRES

    @property
    def commits(self) -> int:
        """How many groups were committed by this object."""
        return self._writes.commits

    async def run(self, op_factory: OpFactory[T]) -> T:
        writers, _ = self._lanes or await self._open()
        return await writers.submit(op_factory)

    async def read(self, op_factory: OpFactory[T]) -> T:
        _, readers = self._lanes or await self._open()
        return await readers.submit(op_factory)

    async def close(self) -> None:
        self._closed = True
        await self._let_go()

    async def __aenter__(self) -> Self:
        try:
            await self.read(_ping)
        except BaseException:
            await self._let_go()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _open(self) -> tuple[Lanes, Lanes]:
        async with self._opening:
            if self._closed:
                raise StoreUnavailableError(f"{self._location} is closed for this process.", location=self._location)
            if self._lanes is None:
                pool = self._server if not isinstance(self._server, str) else await self._own_pool(self._server)
                self._lanes = (
                    self._lanes_to(pool, self._writes, self._options.write_connections),
                    self._lanes_to(pool, Reads(), self._options.read_connections),
                )
            return self._lanes

    async def _let_go(self) -> None:
        async with self._opening:
            lanes, self._lanes = self._lanes, None
            pool, self._pool = self._pool, None
        for each in lanes or ():
            await each.stop()
        if pool is not None:
            await close_pool(pool, timeout_s=self._options.connect_timeout_s)

    async def _own_pool(self, url: str) -> DriverPool:
        connections = self._options.write_connections + self._options.read_connections
        self._pool = await open_pool(url, connections=connections, connect_timeout_s=self._options.connect_timeout_s)
        return self._pool

    def _lanes_to(self, pool: DriverPool, engine: Engine, lanes: int) -> Lanes:
        options = LaneOptions(
            lanes=lanes,
            max_batch=self._options.max_batch,
            patience_s=self._options.patience_s,
            connect_timeout_s=self._options.connect_timeout_s,
            command_timeout_s=self._options.command_timeout_s,
        )
        return Lanes(pool, engine, options=options, session_of=self._session, location=self._location)

    def _session(self, connection: DriverConnection) -> Session:
        return Session(connection, self._forms, timeout_s=self._options.command_timeout_s, location=self._location)


def location_of(url: str) -> str:
    """The server and the database of an address, without its user and password. Raises StoreUrlError."""
    try:
        parts = urlsplit(url)
        host, port, query = parts.hostname, parts.port, parse_qs(parts.query)
    except ValueError:
        raise StoreUrlError(_FORM) from None  # its text would show the address
    host = host or ",".join(query.get("host", []))
    database = parts.path.removeprefix("/") or ",".join(query.get("database", query.get("dbname", [])))
    if parts.scheme not in ("postgresql", "postgres") or not host or not database:
        raise StoreUrlError(_FORM)
    return f"postgresql://{host}{f':{port}' if port else ''}/{database}"


_FORM = (
    "The address of a PostgreSQL store is postgresql://user:password@host:5432/database; special characters in "
    "the password are written as %XX."
)


def _ping() -> Op[None]:
    yield Sql("SELECT 1")
