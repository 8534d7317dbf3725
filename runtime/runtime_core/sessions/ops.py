"""What happens to a session, as operations; `store` runs them on a database.

Records are only ever added, behind what is there. Times are seconds since the epoch and come in; a session that has
expired is not there for anybody, whether or not its rows still are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime_core.errors import StoreFullError
from runtime_core.sessions.schema import SessionKey, StoredRecord
from runtime_core.stores.sql import Op, Sql, SqlValue

ROWS_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What one session may hold. A run reads all of it, and a prompt that remembers is sent all of it."""

    max_records: int = 4096
    max_bytes: int = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Write:
    """The terms of a write: a session that it touches expires `ttl_s` after `now`, or never."""

    now: float
    ttl_s: float | None
    limits: SessionLimits

    @property
    def expires_at(self) -> float | None:
        return None if self.ttl_s is None else self.now + self.ttl_s


@dataclass(frozen=True, slots=True)
class Head:
    """What a session's records add up to; `version` is their number, `size` their bytes."""

    version: int = 0
    size: int = 0
    forked_from: str | None = None
    forked_at: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """Records from the first one or, with `follows`, those behind the one that the reader knew as the last."""

    version: int
    contents: tuple[str, ...] = ()
    follows: bool = False


_HEAD = (
    "SELECT version, size, forked_from, forked_at FROM sessions"
    " WHERE scope_id = ? AND session_id = ? AND (expires_at IS NULL OR expires_at > ?)"
)
_ADVANCE = (
    "INSERT INTO sessions (scope_id, session_id, version, size, created_at, updated_at, expires_at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (scope_id, session_id) DO UPDATE SET version = excluded.version,"
    " size = excluded.size, updated_at = excluded.updated_at, expires_at = excluded.expires_at"
)
_ADD = "INSERT INTO session_records (scope_id, session_id, number, record_id, content) VALUES "
_KNOWN = "SELECT record_id, number FROM session_records WHERE scope_id = ? AND session_id = ? AND record_id IN ("
_RECORDS = (
    "SELECT number, record_id, content FROM session_records"
    " WHERE scope_id = ? AND session_id = ? AND number >= ? ORDER BY number"
)
_DELETE = "DELETE FROM sessions WHERE scope_id = ? AND session_id = ? RETURNING version"
_DELETE_RECORDS = "DELETE FROM session_records WHERE scope_id = ? AND session_id = ?"
_EXPIRED = (
    " WHERE (scope_id, session_id) IN (SELECT scope_id, session_id FROM sessions"
    " WHERE expires_at <= ? ORDER BY expires_at, scope_id, session_id LIMIT ?)"
)
_EXPIRE_RECORDS = "DELETE FROM session_records" + _EXPIRED
_EXPIRE = "DELETE FROM sessions" + _EXPIRED


def head(key: SessionKey, now: float) -> Op[Head | None]:
    """None for a session that is not there."""
    rows = yield Sql(_HEAD, (*key.place, now))
    return Head(*rows[0]) if rows else None


def read(key: SessionKey, now: float, *, since: int = 0, last: str | None = None) -> Op[Found]:
    """The records after version `since`.

    `last` is the id of the record that the reader knows at that version: if the session has another one there,
    because it was deleted and began anew, all of it is found.
    """
    there = yield from head(key, now)
    if there is None:
        return Found(version=0)
    if last is None:
        rows = yield Sql(_RECORDS, (*key.place, since + 1))
        return Found(there.version, tuple(content for _, _, content in rows))
    rows = yield Sql(_RECORDS, (*key.place, since))
    if rows and (rows[0][0], rows[0][1]) == (since, last):
        return Found(there.version, tuple(content for _, _, content in rows[1:]), follows=True)
    rows = yield Sql(_RECORDS, (*key.place, 1))
    return Found(there.version, tuple(content for _, _, content in rows))


def append(key: SessionKey, records: Sequence[StoredRecord], write: Write) -> Op[int]:
    """Put the records behind all others, but for those that the session has; the version that has them all.

    Raises StoreFullError for a session that would outgrow its limits.
    """
    there = yield from head(key, write.now)
    if there is None:
        yield from delete(key)  # what is left of one that has expired
        there = Head()
    known = yield from _numbers(key, [record.record_id for record in records])
    new = list({record.record_id: record for record in records if record.record_id not in known}.values())
    if not new:
        return max(known.values(), default=there.version)
    grown = Head(there.version + len(new), there.size + sum(record.size for record in new))
    _check(key, grown, write.limits)
    facts = (grown.version, grown.size, write.now, write.now, write.expires_at)
    yield Sql(_ADVANCE, (*key.place, *facts))
    yield from _add(key, new, first=there.version + 1)
    return grown.version


def delete(key: SessionKey) -> Op[bool]:
    """Forget a session; whether there was one, expired or not."""
    rows = yield Sql(_DELETE, key.place)
    yield Sql(_DELETE_RECORDS, key.place)
    return bool(rows)


def expire(now: float, limit: int) -> Op[int]:
    """Forget up to `limit` sessions of all scopes that have expired; how many."""
    yield Sql(_EXPIRE_RECORDS, (now, limit))  # first, while the same sessions are still found
    [(expired,)] = yield Sql(_EXPIRE, (now, limit), counts=True)
    return expired


def _numbers(key: SessionKey, record_ids: Sequence[str]) -> Op[dict[str, int]]:
    """Where the session has which of these records."""
    numbers: dict[str, int] = {}
    for start in range(0, len(record_ids), ROWS_AT_ONCE):
        some = record_ids[start : start + ROWS_AT_ONCE]
        rows = yield Sql(_KNOWN + ", ".join("?" * len(some)) + ")", (*key.place, *some))
        numbers.update((record_id, number) for record_id, number in rows)
    return numbers


def _add(key: SessionKey, records: Sequence[StoredRecord], *, first: int) -> Op[None]:
    for start in range(0, len(records), ROWS_AT_ONCE):
        some = records[start : start + ROWS_AT_ONCE]
        values: list[SqlValue] = []
        for number, record in enumerate(some, first + start):
            values += (*key.place, number, record.record_id, record.content)
        yield Sql(_ADD + ", ".join(["(?, ?, ?, ?, ?)"] * len(some)), tuple(values))


def _check(key: SessionKey, grown: Head, limits: SessionLimits) -> None:
    for name, size, limit in (
        ("records", grown.version, limits.max_records),
        ("bytes", grown.size, limits.max_bytes),
    ):
        if size > limit:
            raise StoreFullError(
                f"The session {key.session_id!a} would have {size} {name}, where {limit} are allowed; "
                "begin a new session, or delete this one.",
                limit=limit,
            )
