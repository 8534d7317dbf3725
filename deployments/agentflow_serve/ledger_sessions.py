"""The sessions part of the shared actor: a cache, and commits that no client can interrupt.

A client that leaves cancels everything that its request has called, through processes and into this actor; a commit
that has begun here ends all the same. What arrives while the store commits is committed together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from agentflow_serve.run_store import RunStore
from agentflow_serve.session_wire import WireRecords, records_from_wire, records_to_wire
from llm_client.detached import Detached
from runtime_core.clock import SystemClock
from runtime_core.sessions.cache import CachedSessions
from runtime_core.sessions.catalog import SessionInfo
from runtime_core.sessions.store import StoredSessions

SessionMethod = Literal["read", "append", "fork", "merge", "info", "delete"]
WireRead = tuple[int, WireRecords]


class SessionTerms(NamedTuple):
    """Where an app keeps sessions, and for how long after their last write."""

    store: str
    ttl_s: float | None


class Place(NamedTuple):
    """Whose session, and which one."""

    scope_id: str
    session_id: str


async def open_sessions(store: RunStore, ttl_s: float | None) -> StoredSessions:
    """The sessions in a run store, ready to be used."""
    sessions = StoredSessions(await store.database(), clock=SystemClock(), ttl_s=ttl_s)
    await sessions.prepare()
    return sessions


class LedgerSessions:
    """Sessions for callers in other processes; opened at the first call."""

    def __init__(self, store: RunStore, ttl_s: float | None) -> None:
        self._run_store = store
        self._ttl_s = ttl_s
        self._store: StoredSessions | None = None
        self._cache: CachedSessions | None = None
        self._commits = Detached()

    async def read(self, place: Place, since: int) -> WireRead:
        found = await (await self._cached()).read(**place._asdict(), since=since)
        return found.version, records_to_wire(found.records)

    async def append(self, place: Place, records: WireRecords, base: int) -> int:
        return await self._commits.run(self._append(place, records, base))

    async def fork(self, place: Place, into: str, at: int | None) -> int:
        store = await self._opened()
        return await self._commits.run(store.fork(**place._asdict(), into=into, at=at))

    async def merge(self, place: Place, sources: Sequence[str]) -> int:
        store = await self._opened()
        return await self._commits.run(store.merge(**place._asdict(), sources=sources))

    async def info(self, place: Place) -> SessionInfo | None:
        return await (await self._opened()).info(**place._asdict())

    async def delete(self, place: Place) -> bool:
        return await (await self._opened()).delete(**place._asdict())

    async def aclose(self) -> None:
        """Wait for the commits that have begun."""
        await self._commits.drain()

    async def _append(self, place: Place, records: WireRecords, base: int) -> int:
        return await (await self._opened()).append(**place._asdict(), records=records_from_wire(records), base=base)

    async def _cached(self) -> CachedSessions:
        store = await self._opened()
        if self._cache is None:
            self._cache = CachedSessions(store)
        return self._cache

    async def _opened(self) -> StoredSessions:
        if self._store is None:
            self._store = await open_sessions(self._run_store, self._ttl_s)
        return self._store
