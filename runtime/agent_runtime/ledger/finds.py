"""What the ledger is asked: events in order, and what they add up to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from agent_runtime.ledger.records import EventState, LedgerEvent, LedgerUsage
from agent_runtime.ledger.schema import EVENT_COLUMNS, event_of
from runtime_core.stores.sql import Op, Sql, SqlValue


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events; None does not filter. `since` is included, `until` is not."""

    type: str | None = None
    state: EventState | None = None
    principal_id: str | None = None
    role: str | None = None
    run_id: str | None = None
    job_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class EventCursor:
    """Where a page ended; the next one begins after it."""

    timestamp: datetime
    event_id: str


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events, the oldest first; `next` is None on the last page."""

    events: list[LedgerEvent]
    next: EventCursor | None


_SUMS = (
    "COUNT(*), COALESCE(SUM(CASE WHEN state = 'reserved' THEN 1 ELSE 0 END), 0),"
    " COALESCE(SUM(CASE WHEN state = 'unknown' THEN 1 ELSE 0 END), 0), COALESCE(SUM(estimated), 0),"
    " COALESCE(SUM(1 - priced), 0), "
    + ", ".join(
        f"COALESCE(SUM({name}), 0)"
        for name in (
            "input_tokens",
            "output_tokens",
            "total_tokens",
            "cost_micro",
            "requests",
            "tool_calls",
            "turns",
            "runtime_ms",
        )
    )
)
_NAMES = tuple(LedgerUsage.model_fields)


def events(scope_id: str, which: EventFilter, after: EventCursor | None, limit: int) -> Op[EventPage]:
    """At most `limit` events, the oldest first."""
    clauses, params = where(scope_id, which)
    if after is not None:
        clauses += " AND (timestamp, event_id) > (?, ?)"
        params += [after.timestamp.timestamp(), after.event_id]
    text = "SELECT " + EVENT_COLUMNS + " FROM runtime_ledger WHERE " + clauses + " ORDER BY timestamp, event_id LIMIT ?"
    rows = yield Sql(text, (*params, limit + 1))
    found = [event_of(row) for row in rows[:limit]]
    last = found[-1] if len(rows) > limit else None
    return EventPage(found, None if last is None else EventCursor(last.timestamp, last.event_id))


def usage(scope_id: str, which: EventFilter) -> Op[LedgerUsage]:
    """The sums of what was used; zeros without events."""
    clauses, params = where(scope_id, which)
    [sums] = yield Sql("SELECT " + _SUMS + " FROM runtime_ledger WHERE state <> 'noted' AND " + clauses, tuple(params))
    return LedgerUsage(**{name: int(value) for name, value in zip(_NAMES, sums, strict=True)})


def where(scope_id: str, which: EventFilter) -> tuple[str, list[SqlValue]]:
    """The condition for rows of runtime_ledger, whatever it is joined with, and its parameters."""
    text = "runtime_ledger.scope_id = ?"
    params: list[SqlValue] = [scope_id]
    for clause, value in (
        (" AND runtime_ledger.type = ?", which.type),
        (" AND runtime_ledger.state = ?", which.state and which.state.value),
        (" AND runtime_ledger.principal_id = ?", which.principal_id),
        (" AND runtime_ledger.role = ?", which.role),
        (" AND runtime_ledger.run_id = ?", which.run_id),
        (" AND runtime_ledger.job_id = ?", which.job_id),
        (" AND runtime_ledger.timestamp >= ?", which.since and which.since.timestamp()),
        (" AND runtime_ledger.timestamp < ?", which.until and which.until.timestamp()),
    ):
        if value is not None:
            text += clause
            params.append(value)
    return text, params
