"""Records, session stores and one that repeats its calls, for the tests of sessions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from runtime_core.clock import Clock
from runtime_core.sessions.cache import CachedSessions
from runtime_core.sessions.ops import SessionLimits
from runtime_core.sessions.records import RecordUsage, SessionRecord
from runtime_core.sessions.store import StoredSessions
from runtime_core.stores import Database, open_database
from runtime_core.stores.faults import FaultyDatabase
from support.stores import persist


class RepeatingSessions:
    """A store whose calls are repeated until the store answers, as a caller with stable ids does."""

    def __init__(self, store: StoredSessions | CachedSessions) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._store, name)
        return lambda *args, **named: persist(lambda: method(*args, **named))


def open_session_database(url: str, *, fault_rate: float = 0.0) -> Database:
    """With a fault rate, one that loses that share of calls and answers."""
    database = open_database(url, node_id="node-1")
    return FaultyDatabase(database, Random(7), rate=fault_rate) if fault_rate else database


async def prepared_sessions(
    database: Database, clock: Clock, *, ttl_s: float | None = None, limits: SessionLimits | None = None
) -> StoredSessions:
    store = StoredSessions(database, clock=clock, ttl_s=ttl_s, limits=limits or SessionLimits())
    await persist(store.prepare)
    return store


def said(text: str, *, run_id: str = "run-1", **facts: Any) -> SessionRecord:
    """A turn whose id is that of its run and the beginning of its text."""
    return SessionRecord(
        **{"record_id": f"{run_id}/{text[:50]}", "run_id": run_id, "role": "user", "text": text, **facts}
    )


FULL = said(
    "a line\nand \x00 and \u00e9\U0001f40d",
    record_id="full",
    role="assistant",
    tool_calls=({"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": [1]}'}},),
    tool_call_id="c0",
    usage=RecordUsage(input_tokens=3, output_tokens=2**40),
    node="ask",
)
"""A record that uses every field, and text that a database may find hard to keep."""
