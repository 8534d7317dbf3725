"""Sessions that begin as a copy of another one, and what they add brought back."""

from __future__ import annotations

from collections.abc import Sequence

from runtime_core.errors import StoreConflictError, StoreValueError
from runtime_core.sessions.ops import Head, Write, append, delete, head
from runtime_core.sessions.schema import SessionKey, StoredRecord
from runtime_core.stores.sql import Op, Sql

_COPY = (
    "INSERT INTO session_records (scope_id, session_id, number, record_id, content)"
    " SELECT scope_id, ?, number, record_id, content FROM session_records"
    " WHERE scope_id = ? AND session_id = ? AND number <= ?"
)
_CONTENTS = "SELECT content FROM session_records WHERE scope_id = ? AND session_id = ? AND number <= ?"
_BEGIN = (
    "INSERT INTO sessions (scope_id, session_id, version, size, created_at, updated_at, expires_at, forked_from,"
    " forked_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_MISSING = (
    "SELECT s.record_id, s.content FROM session_records s WHERE s.scope_id = ? AND s.session_id = ?"
    " AND NOT EXISTS (SELECT 1 FROM session_records t WHERE t.scope_id = s.scope_id AND t.session_id = ?"
    " AND t.record_id = s.record_id) ORDER BY s.number"
)


def fork(source: SessionKey, into: SessionKey, at: int | None, write: Write) -> Op[int]:
    """Begin `into` with the records of `source` up to version `at`, or all of them; the version that it begins with.

    Forked again, the same source at the same version changes nothing. Raises StoreConflictError where `into` is
    another session already, StoreValueError for a version that the source does not have.
    """
    taken = yield from head(into, write.now)
    if taken is not None:
        if taken.forked_from == source.session_id and taken.forked_at is not None and at in (None, taken.forked_at):
            return taken.forked_at
        raise StoreConflictError(f"There is a session {into.session_id!a} already; fork into another one.")
    there = (yield from head(source, write.now)) or Head()
    version = there.version if at is None else at
    if not 0 <= version <= there.version:
        raise StoreValueError(
            f"The session {source.session_id!a} has the versions 0 to {there.version}, so it cannot be forked at"
            f" {version}."
        )
    yield from delete(into)  # what is left of one that has expired
    size = there.size if version == there.version else (yield from _size(source, version))
    facts = (version, size, write.now, write.now, write.expires_at, source.session_id, version)
    yield Sql(_BEGIN, (*into.place, *facts))
    yield Sql(_COPY, (into.session_id, *source.place, version))
    return version


def _size(source: SessionKey, version: int) -> Op[int]:
    """The bytes of a session's first records; those of all of them are known."""
    contents = yield Sql(_CONTENTS, (*source.place, version))
    return sum(len(content.encode()) for (content,) in contents)


def merge(key: SessionKey, sources: Sequence[SessionKey], write: Write) -> Op[int]:
    """Put behind a session's records what it lacks of each source's, source by source; its version then.

    Raises StoreFullError as `append` does; nothing is merged then.
    """
    there = yield from head(key, write.now)
    if there is None:
        yield from delete(key)  # what is left of one that has expired
    version = 0 if there is None else there.version
    for source in sources:
        if (yield from head(source, write.now)) is None:
            continue
        rows = yield Sql(_MISSING, (*source.place, key.session_id))
        if rows:
            version = yield from append(key, [StoredRecord(*row) for row in rows], write)
    return version
