"""Sessions as a predictor reaches them: through the app's actor, or past it where it does not answer.

Both ways end in the same transactions of the same store, and a record that arrives on both is kept once; so nothing
has to be known about a call that was given up.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from agentflow_serve.actor_or_store import MEMORY, ActorOrStore, Calls
from agentflow_serve.errors import LedgerAway
from agentflow_serve.ledger_sessions import Place, SessionMethod, SessionTerms, open_sessions
from agentflow_serve.run_store import RunStore
from agentflow_serve.session_ledger import LedgerCalls
from agentflow_serve.session_wire import records_from_wire, records_to_wire
from llm_client.detached import Detached
from runtime_core.sessions.catalog import SessionInfo
from runtime_core.sessions.protocol import SessionRead
from runtime_core.sessions.records import SessionRecord
from runtime_core.sessions.store import StoredSessions

T = TypeVar("T")


class SharedSessions:
    """A SessionStore, and a look at single sessions. `past` is the store itself, None where only the actor has it."""

    def __init__(
        self,
        calls: Calls,
        terms: SessionTerms,
        past: StoredSessions | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._terms = terms
        self._way = ActorOrStore(calls, past, what="sessions", clock=clock)
        self._commits = Detached()

    @classmethod
    async def open(cls, stack: AsyncExitStack, app_name: str, terms: SessionTerms, store: RunStore) -> SharedSessions:
        """Those of an app; commits that nobody waits for any more have ended when `stack` is closed."""
        past = None if terms.store == MEMORY else await open_sessions(store, terms.ttl_s)
        sessions = cls(LedgerCalls(app_name), terms, past)
        stack.push_async_callback(sessions.drain)
        return sessions

    async def read(self, *, scope_id: str, session_id: str, since: int = 0) -> SessionRead:
        try:
            version, records = await self._ask("read", Place(scope_id, session_id), since)
        except LedgerAway as exc:
            return await self._way.without(exc).read(scope_id=scope_id, session_id=session_id, since=since)
        return SessionRead(version, records_from_wire(records))

    async def append(self, *, scope_id: str, session_id: str, records: Sequence[SessionRecord], base: int) -> int:
        """As the store's; it goes on when the caller is cancelled, and so do all other changes."""
        place, sent = Place(scope_id, session_id), records_to_wire(records)
        return await self._change(
            "append", place, sent, base, past=lambda store: store.append(**place._asdict(), records=records, base=base)
        )

    async def fork(self, *, scope_id: str, session_id: str, into: str, at: int | None = None) -> int:
        place = Place(scope_id, session_id)
        return await self._change(
            "fork", place, into, at, past=lambda store: store.fork(**place._asdict(), into=into, at=at)
        )

    async def merge(self, *, scope_id: str, session_id: str, sources: Sequence[str]) -> int:
        place = Place(scope_id, session_id)
        return await self._change(
            "merge", place, sources, past=lambda store: store.merge(**place._asdict(), sources=sources)
        )

    async def delete(self, *, scope_id: str, session_id: str) -> bool:
        place = Place(scope_id, session_id)
        return await self._change("delete", place, past=lambda store: store.delete(**place._asdict()))

    async def info(self, *, scope_id: str, session_id: str) -> SessionInfo | None:
        try:
            return await self._ask("info", Place(scope_id, session_id))
        except LedgerAway as exc:
            return await self._way.without(exc).info(scope_id=scope_id, session_id=session_id)

    async def drain(self) -> None:
        """Return when every change that was begun has ended."""
        await self._commits.drain()

    async def _change(
        self, method: SessionMethod, place: Place, *args: Any, past: Callable[[StoredSessions], Awaitable[T]]
    ) -> T:
        """What the actor says; where it says nothing, `past` does the same to the store itself."""

        async def change() -> T:
            try:
                return await self._ask(method, place, *args)
            except LedgerAway as exc:
                return await past(self._way.without(exc))

        return await self._commits.run(change())

    async def _ask(self, method: SessionMethod, place: Place, *args: Any) -> Any:
        return await self._way.ask("session", self._terms, method, place, *args)
