"""What the log is asked: attempts by run and status, kept answers, and the newest answer to a request."""

from __future__ import annotations

from dataclasses import dataclass

from runtime_core.call_log.keys import Answer
from runtime_core.call_log.records import AttemptStatus, LoggedAttempt
from runtime_core.call_log.schema import COLUMNS, logged
from runtime_core.stores.sql import Op, Sql, where


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page ended; the next one begins after it."""

    reserved_at: float
    attempt_id: str


@dataclass(frozen=True, slots=True)
class Page:
    """Attempts in the order they were reserved; `next` is None on the last page."""

    attempts: list[LoggedAttempt]
    next: Cursor | None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which attempts; None does not filter."""

    run_id: str | None = None
    status: AttemptStatus | None = None


_CACHED = (
    "SELECT c.attempt_id, a.content FROM calls c JOIN answers a"
    " ON a.scope_id = c.scope_id AND a.answer_hash = c.answer_hash"
    " WHERE c.scope_id = ? AND c.request_hash = ? AND c.answer_hash IS NOT NULL AND c.ended_at > ?"
    " ORDER BY c.ended_at DESC, c.attempt_id DESC LIMIT 1"
)


def attempts(scope_id: str, which: Filter, *, after: Cursor | None, limit: int) -> Op[Page]:
    """At most `limit` attempts, the oldest first."""
    asked, params = where(("run_id = ?", which.run_id), ("status = ?", which.status and which.status.value))
    text = "SELECT " + COLUMNS + " FROM calls WHERE scope_id = ?" + asked
    if after is not None:
        text += " AND (reserved_at, attempt_id) > (?, ?)"
        params += [after.reserved_at, after.attempt_id]
    rows = yield Sql(text + " ORDER BY reserved_at, attempt_id LIMIT ?", (scope_id, *params, limit + 1))
    found = [logged(row) for row in rows[:limit]]
    last = found[-1].attempt if len(rows) > limit else None
    return Page(found, None if last is None else Cursor(last.reserved_at, last.attempt_id))


def answer(scope_id: str, answer_hash: str) -> Op[str | None]:
    """The kept text of that hash."""
    rows = yield Sql("SELECT content FROM answers WHERE scope_id = ? AND answer_hash = ?", (scope_id, answer_hash))
    return rows[0][0] if rows else None


def cached(scope_id: str, request_hash: str, newer_than: float) -> Op[Answer | None]:
    """The newest success with that request hash that ended after `newer_than`."""
    rows = yield Sql(_CACHED, (scope_id, request_hash, newer_than))
    return Answer(*rows[0]) if rows else None
