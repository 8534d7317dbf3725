"""What the ledger forgets: events that ended long ago. Counters keep what they added up to."""

from __future__ import annotations

from runtime_core.stores.sql import Op, Sql

# From scope to scope by the index on scope and time; one on time alone would make every call dearer.
_EVENTS = (
    "WITH RECURSIVE scopes (scope_id) AS (SELECT MIN(scope_id) FROM runtime_ledger UNION ALL"
    " SELECT (SELECT MIN(e.scope_id) FROM runtime_ledger e WHERE e.scope_id > s.scope_id) FROM scopes s"
    " WHERE s.scope_id IS NOT NULL)"
    " DELETE FROM runtime_ledger WHERE (scope_id, event_id) IN (SELECT e.scope_id, e.event_id FROM scopes s"
    " JOIN runtime_ledger e ON e.scope_id = s.scope_id AND e.timestamp < ? AND e.state <> 'reserved'"
    " AND COALESCE(e.ended_at, e.timestamp) < ? LIMIT ?)"
    " RETURNING event_id"
)
_EVENTS_OF_SCOPE = (
    "DELETE FROM runtime_ledger WHERE (scope_id, event_id) IN (SELECT scope_id, event_id FROM runtime_ledger"
    " WHERE scope_id = ? AND timestamp < ? AND state <> 'reserved' AND COALESCE(ended_at, timestamp) < ?"
    " ORDER BY timestamp LIMIT ?)"
)


def forget_events(scope_id: str | None, older_than: float, limit: int) -> Op[int]:
    """Delete up to `limit` events that ended before `older_than`, of one scope or of all; how many."""
    if scope_id is None:
        return len((yield Sql(_EVENTS, (older_than, older_than, limit))))  # SQLite counts nothing after a WITH
    [(gone,)] = yield Sql(_EVENTS_OF_SCOPE, (scope_id, older_than, older_than, limit), counts=True)
    return gone
