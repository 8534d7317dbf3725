"""The sessions that were read or written last, kept in memory in front of their store.

The store stays the only authority: every read asks it what stands behind the last record that is kept, so another
process may write, delete or expire a session at any time. What is saved is reading and parsing the whole of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from runtime_core.sessions.protocol import SessionRead
from runtime_core.sessions.records import SessionRecord
from runtime_core.sessions.schema import SessionKey
from runtime_core.sessions.store import StoredSessions

MAX_CHARS = 32 * 1024 * 1024
RECORD_CHARS = 1024
"""What a record without its text weighs, in characters, near enough."""


@dataclass(frozen=True, slots=True)
class _Kept:
    version: int
    records: tuple[SessionRecord, ...]
    chars: int


class CachedSessions:
    """A SessionStore in front of another; the session that was used least goes first when there is no room."""

    def __init__(self, store: StoredSessions, *, max_chars: int = MAX_CHARS) -> None:
        self._store = store
        self._max_chars = max_chars
        self._kept: OrderedDict[SessionKey, _Kept] = OrderedDict()
        self._chars = 0

    async def read(self, *, scope_id: str, session_id: str, since: int = 0) -> SessionRead:
        key = SessionKey(scope_id, session_id)
        kept = self._kept.get(key)
        if kept is None:
            found = await self._store.read(scope_id=scope_id, session_id=session_id)
            fresh = _Kept(found.version, found.records, _chars(found.records))
        else:
            news = await self._store.follow(key, version=kept.version, last=kept.records[-1].record_id)
            before = kept if news.follows else _Kept(0, (), 0)
            records = (*before.records, *news.records)
            fresh = _Kept(news.version, records, before.chars + _chars(news.records))
        self._keep(key, fresh)
        return SessionRead(fresh.version, fresh.records[since:])

    async def append(self, *, scope_id: str, session_id: str, records: Sequence[SessionRecord], base: int) -> int:
        return await self._store.append(scope_id=scope_id, session_id=session_id, records=records, base=base)

    def _keep(self, key: SessionKey, fresh: _Kept) -> None:
        if (old := self._kept.pop(key, None)) is not None:
            self._chars -= old.chars
        if fresh.records:
            self._kept[key] = fresh
            self._chars += fresh.chars
        while self._chars > self._max_chars:
            self._chars -= self._kept.popitem(last=False)[1].chars


def _chars(records: Sequence[SessionRecord]) -> int:
    return sum(RECORD_CHARS + len(record.text) for record in records)
