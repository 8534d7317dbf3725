"""Which sessions a scope has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from runtime_core.sessions.schema import SessionKey
from runtime_core.stores.sql import Op, Sql, SqlValue


class SessionInfo(BaseModel):
    """A session without its records. `version` is also their number; times are seconds since the epoch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    session_id: str
    version: int
    size_bytes: int
    created_at: float
    updated_at: float
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class SessionCursor:
    """Where a page ended; the next one begins after it."""

    updated_at: float
    session_id: str


@dataclass(frozen=True, slots=True)
class SessionPage:
    """Sessions, the one that was written to last first; `next` is None on the last page."""

    sessions: list[SessionInfo]
    next: SessionCursor | None


_NAMES = tuple(SessionInfo.model_fields)
_LIVE = (
    "SELECT session_id, version, size, created_at, updated_at, expires_at FROM sessions"
    " WHERE scope_id = ? AND (expires_at IS NULL OR expires_at > ?)"
)


def info(key: SessionKey, now: float) -> Op[SessionInfo | None]:
    """None for a session that is not there."""
    rows = yield Sql(_LIVE + " AND session_id = ?", (key.scope_id, now, key.session_id))
    return _info(rows[0]) if rows else None


def sessions(scope_id: str, now: float, *, after: SessionCursor | None, limit: int) -> Op[SessionPage]:
    """At most `limit` sessions of the scope."""
    text = _LIVE
    params: list[SqlValue] = [scope_id, now]
    if after is not None:
        text += " AND (updated_at, session_id) < (?, ?)"
        params += [after.updated_at, after.session_id]
    rows = yield Sql(text + " ORDER BY updated_at DESC, session_id DESC LIMIT ?", (*params, limit + 1))
    found = [_info(row) for row in rows[:limit]]
    last = found[-1] if len(rows) > limit else None
    return SessionPage(found, None if last is None else SessionCursor(last.updated_at, last.session_id))


def _info(row: tuple[Any, ...]) -> SessionInfo:
    return SessionInfo.model_validate(dict(zip(_NAMES, row, strict=True)))
