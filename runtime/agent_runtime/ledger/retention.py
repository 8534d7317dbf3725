"""What the ledger forgets: events that ended long ago. Counters keep what they added up to."""

from __future__ import annotations

from runtime_core.stores.sql import Op, Sql

_EVENTS = (
    "DELETE FROM runtime_ledger WHERE (scope_id, event_id) IN (SELECT scope_id, event_id FROM runtime_ledger"
    " WHERE state <> 'reserved' AND timestamp < ? AND COALESCE(ended_at, timestamp) < ?"
)


def forget_events(scope_id: str | None, older_than: float, limit: int) -> Op[int]:
    """Delete up to `limit` events that ended before `older_than`, of one scope or of all; how many."""
    params = (older_than, older_than)
    if scope_id is None:
        [(gone,)] = yield Sql(_EVENTS + " ORDER BY timestamp LIMIT ?)", (*params, limit), counts=True)
    else:
        text = _EVENTS + " AND scope_id = ? ORDER BY timestamp LIMIT ?)"
        [(gone,)] = yield Sql(text, (*params, scope_id, limit), counts=True)
    return gone
