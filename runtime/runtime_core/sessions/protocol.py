"""The door to a session's records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from runtime_core.sessions.records import SessionRecord


@dataclass(frozen=True, slots=True)
class SessionRead:
    """The records of a session after the version that was asked for, in order, and the version they lead to."""

    version: int
    records: tuple[SessionRecord, ...] = ()


class SessionStore(Protocol):
    """Keeps sessions, each of one scope: the same session id in two scopes is two sessions."""

    async def read(self, *, scope_id: str, session_id: str, since: int = 0) -> SessionRead:
        """What was appended after version `since`; 0 is all. A session that nobody wrote is empty at version 0."""
        ...

    async def append(self, *, scope_id: str, session_id: str, records: Sequence[SessionRecord], base: int) -> int:
        """Add records that were made upon version `base`, and tell the new version.

        An append whose base is old is put behind what others added since, as a whole; it does not fail.
        A record whose id the session has is not added again.
        """
        ...
