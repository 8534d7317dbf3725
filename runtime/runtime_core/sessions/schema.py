"""The tables of sessions, and how a row becomes a record.

`sessions` has one row for each session, with what its records add up to; `session_records` has the records, numbered
1, 2, 3, ... without a gap, so that a session's version is the number of its last record.
"""

from __future__ import annotations

from dataclasses import dataclass

from runtime_core.ids import check_id, check_scope_id
from runtime_core.sessions.records import SessionRecord
from runtime_core.stores.migrations import Migration


@dataclass(frozen=True, slots=True)
class SessionKey:
    """Whose session, and which one. Raises IdentityError for an id that is not canonical."""

    scope_id: str
    session_id: str

    def __post_init__(self) -> None:
        check_scope_id(self.scope_id)
        check_id(self.session_id, what="session id")

    @property
    def place(self) -> tuple[str, str]:
        return (self.scope_id, self.session_id)


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as it is stored; `content` is the whole of it as JSON."""

    record_id: str
    content: str

    @property
    def size(self) -> int:
        return len(self.content.encode())


def to_store(record: SessionRecord) -> StoredRecord:
    return StoredRecord(record.record_id, record.model_dump_json(exclude_defaults=True))


def from_store(content: str) -> SessionRecord:
    return SessionRecord.model_validate_json(content)


MIGRATIONS = (
    Migration(
        version=1,
        statements=(
            "CREATE TABLE sessions (scope_id {text} NOT NULL, session_id {text} NOT NULL, version {int} NOT NULL,"
            " size {int} NOT NULL, created_at {real} NOT NULL, updated_at {real} NOT NULL, expires_at {real},"
            " forked_from {text}, forked_at {int}, PRIMARY KEY (scope_id, session_id))",
            "CREATE INDEX sessions_recent ON sessions (scope_id, updated_at, session_id)",
            "CREATE INDEX sessions_expiry ON sessions (expires_at) WHERE expires_at IS NOT NULL",
            "CREATE TABLE session_records (scope_id {text} NOT NULL, session_id {text} NOT NULL,"
            " number {int} NOT NULL, record_id {text} NOT NULL, content {text} NOT NULL,"
            " PRIMARY KEY (scope_id, session_id, number))",
            "CREATE UNIQUE INDEX session_records_id ON session_records (scope_id, session_id, record_id)",
        ),
    ),
    Migration(version=2, scoped=("sessions", "session_records")),
)
