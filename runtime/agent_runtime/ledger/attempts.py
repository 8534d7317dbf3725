"""Attempts at models as an operator reads them: the call log's row, and what the ledger counts for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from agent_runtime.ledger.finds import EventFilter
from agent_runtime.stores import from_seconds
from runtime_core.call_log.finds import Cursor
from runtime_core.call_log.records import AttemptStatus
from runtime_core.stores.sql import Op, Sql, SqlValue


class AttemptLine(BaseModel):
    """One attempt. Money is in millionths of a dollar; None is not known, or not yet.

    `input_tokens`, `output_tokens` and `cost_micro` are what the call took as far as anybody can tell,
    `estimated` where the provider did not count. `counted_*` is what the ledger counts in budgets: the reserved maximum
    while it is reserved and where it stays unknown. They and `reserved_*` are None for an attempt without a ledger.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempt_id: str
    call_id: str
    number: int
    kind: str
    status: AttemptStatus
    started_at: datetime
    ended_at: datetime | None
    duration_s: float | None
    principal_id: str
    role: str
    provider: str
    model: str
    node: str | None
    run_id: str | None
    session_id: str | None
    job_id: str | None
    trace_id: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost_micro: int | None
    estimated: bool
    lapsed: bool
    reserved_tokens: int | None
    reserved_cost_micro: int | None
    counted_tokens: int | None
    counted_cost_micro: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class AttemptPage:
    """Attempts, the newest first; `next` is None on the last page."""

    attempts: list[AttemptLine]
    next: Cursor | None


_OF_CALL = (
    "attempt_id, call_id, number, kind, status, reserved_at, ended_at, principal_id, role, provider, model, node,"
    " run_id, session_id, job_id, trace_id, input_tokens, output_tokens, cost_micro, usage_estimated, error"
)
_OF_EVENT = "lapsed, reserved_tokens, reserved_cost_micro, total_tokens, cost_micro"
_NAMES = (
    *_OF_CALL.split(", "),
    *("lapsed", "reserved_tokens", "reserved_cost_micro", "counted_tokens", "counted_cost_micro"),
)
_SELECT = (
    "SELECT "
    + ", ".join(f"calls.{name}" for name in _OF_CALL.split(", "))
    + ", "
    + ", ".join(f"runtime_ledger.{name}" for name in _OF_EVENT.split(", "))
    + " FROM calls LEFT JOIN runtime_ledger"
    " ON runtime_ledger.scope_id = calls.scope_id AND runtime_ledger.event_id = calls.attempt_id WHERE "
)
_ORDER = " ORDER BY calls.reserved_at DESC, calls.attempt_id DESC LIMIT ?"


def attempts(scope_id: str, which: EventFilter, after: Cursor | None, limit: int) -> Op[AttemptPage]:
    """At most `limit` attempts, the newest first. A filter's `type` says nothing here: all are of models."""
    clauses, params = _where(scope_id, which)
    if after is not None:
        clauses += " AND (calls.reserved_at, calls.attempt_id) < (?, ?)"
        params += [after.reserved_at, after.attempt_id]
    rows = yield Sql(_SELECT + clauses + _ORDER, (*params, limit + 1))
    last = rows[limit - 1] if len(rows) > limit else None
    found = [_line(row) for row in rows[:limit]]
    return AttemptPage(found, None if last is None else Cursor(last[_NAMES.index("reserved_at")], last[0]))


def unknown_since(moment: float) -> Op[int]:
    """How many attempts of all scopes have ended as unknown since then: for those who operate a service."""
    [(count,)] = yield Sql("SELECT COUNT(*) FROM calls WHERE ended_at > ? AND status = 'unknown'", (moment,))
    return int(count)


def _where(scope_id: str, which: EventFilter) -> tuple[str, list[SqlValue]]:
    text = "calls.scope_id = ?"
    params: list[SqlValue] = [scope_id]
    for clause, value in (
        (" AND calls.status = ?", which.state and which.state.value),
        (" AND calls.principal_id = ?", which.principal_id),
        (" AND calls.role = ?", which.role),
        (" AND calls.run_id = ?", which.run_id),
        (" AND calls.job_id = ?", which.job_id),
        (" AND calls.reserved_at >= ?", which.since and which.since.timestamp()),
        (" AND calls.reserved_at < ?", which.until and which.until.timestamp()),
    ):
        if value is not None:
            text += clause
            params.append(value)
    return text, params


def _line(row: tuple[Any, ...]) -> AttemptLine:
    facts = dict(zip(_NAMES, row, strict=True))
    started, ended = facts.pop("reserved_at"), facts.pop("ended_at")
    facts["estimated"] = bool(facts.pop("usage_estimated"))
    facts["lapsed"] = bool(facts["lapsed"])
    facts["started_at"], facts["ended_at"] = from_seconds(started), from_seconds(ended)
    facts["duration_s"] = None if ended is None else max(0.0, round(ended - started, 3))
    return AttemptLine.model_validate(facts)
