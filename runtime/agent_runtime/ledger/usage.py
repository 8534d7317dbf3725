"""What a scope has used, by whom or for what: the sums are made in the store, a page of groups at a time.

What is known, what is reserved and what nobody can tell are three numbers here, never one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict

from agent_runtime.ledger.finds import EventFilter, where
from agent_runtime.ledger.records import HOLD
from runtime_core.stores.sql import Op, Sql


class UsageSums(BaseModel):
    """Sums over the events of a ledger; money in millionths of a dollar.

    `tokens` and `cost_micro` are of `settled` events; `estimated` of these were not counted by the provider. `open`
    ones are reserved now and `unknown` ones will never be told: `open_*` and `unknown_*` are the most that they may
    have taken. `lapsed` are the unknown ones whose lease ran out. `unpriced` are events whose money is not known.
    `holds` are of runs that reserve their whole budget, and no events: `held_*` is what their calls have not drawn.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    events: int = 0
    settled: int = 0
    released: int = 0
    open: int = 0
    unknown: int = 0
    lapsed: int = 0
    estimated: int = 0
    unpriced: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    tokens: int = 0
    cost_micro: int = 0
    open_tokens: int = 0
    open_cost_micro: int = 0
    unknown_tokens: int = 0
    unknown_cost_micro: int = 0
    holds: int = 0
    held_tokens: int = 0
    held_cost_micro: int = 0
    requests: int = 0
    tool_calls: int = 0
    turns: int = 0
    runtime_ms: int = 0

    def __sub__(self, other: UsageSums) -> UsageSums:
        mine, theirs = self.model_dump(), other.model_dump()
        return UsageSums(**{name: mine[name] - theirs[name] for name in mine})

    def __add__(self, other: UsageSums) -> UsageSums:
        mine, theirs = self.model_dump(), other.model_dump()
        return UsageSums(**{name: mine[name] + theirs[name] for name in mine})


class GroupBy(StrEnum):
    """What makes a group. Days and hours are UTC; a model is `provider/model`, as the call log has it."""

    ROLE = "role"
    PRINCIPAL = "principal"
    RUN = "run"
    MODEL = "model"
    DAY = "day"
    HOUR = "hour"


@dataclass(frozen=True, slots=True)
class UsageGroup:
    """`part` is the role, the principal, the run or the model, empty where there is none; or the second in which the
    day or the hour began, since the epoch."""

    part: str | int
    sums: UsageSums


@dataclass(frozen=True, slots=True)
class GroupCursor:
    """Where a page ended: a group, and what it was sorted by. What is used meanwhile may move a group between pages."""

    part: str | int
    cost_micro: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class GroupPage:
    """Groups that took the most first, days and hours the latest first; `next` is None on the last page.

    `total` is of all groups, those of other pages included, at the same moment.
    """

    total: UsageSums
    groups: list[UsageGroup]
    next: GroupCursor | None


_NAMES = tuple(UsageSums.model_fields)
_STATE = f"SUM(CASE WHEN runtime_ledger.state = '{{}}' AND runtime_ledger.type <> '{HOLD}' THEN {{}} ELSE 0 END)"
_HELD = f"SUM(CASE WHEN runtime_ledger.state = 'reserved' AND runtime_ledger.type = '{HOLD}' THEN {{}} ELSE 0 END)"
_LEDGER = "runtime_ledger."
_SUMS = {
    "events": f"SUM(CASE WHEN runtime_ledger.type = '{HOLD}' THEN 0 ELSE 1 END)",
    "settled": _STATE.format("settled", 1),
    "released": _STATE.format("released", 1),
    "open": _STATE.format("reserved", 1),
    "unknown": _STATE.format("unknown", 1),
    "lapsed": _STATE.format("unknown", _LEDGER + "lapsed"),
    "estimated": _STATE.format("settled", _LEDGER + "estimated"),
    "unpriced": "SUM(CASE WHEN runtime_ledger.state = 'released' THEN 0 ELSE 1 - runtime_ledger.priced END)",
    "input_tokens": _STATE.format("settled", _LEDGER + "input_tokens"),
    "output_tokens": _STATE.format("settled", _LEDGER + "output_tokens"),
    "tokens": _STATE.format("settled", _LEDGER + "total_tokens"),
    "cost_micro": _STATE.format("settled", _LEDGER + "cost_micro"),
    "open_tokens": _STATE.format("reserved", _LEDGER + "total_tokens"),
    "open_cost_micro": _STATE.format("reserved", _LEDGER + "cost_micro"),
    "unknown_tokens": _STATE.format("unknown", _LEDGER + "total_tokens"),
    "unknown_cost_micro": _STATE.format("unknown", _LEDGER + "cost_micro"),
    "holds": _HELD.format(1),
    "held_tokens": _HELD.format(_LEDGER + "total_tokens"),
    "held_cost_micro": _HELD.format(_LEDGER + "cost_micro"),
    **{name: f"SUM(runtime_ledger.{name})" for name in ("requests", "tool_calls", "turns", "runtime_ms")},
}
_COLUMNS = ", ".join(f"COALESCE({_SUMS[name]}, 0) AS {name}" for name in _NAMES)
_MOST = ", ".join(
    f"CAST(SUM(runtime_ledger.{name}) AS BIGINT) AS most_{name}" for name in ("cost_micro", "total_tokens")
)
_FROM = " FROM runtime_ledger"
_CALLS = " LEFT JOIN calls ON calls.scope_id = runtime_ledger.scope_id AND calls.attempt_id = runtime_ledger.event_id"
_NOT_NOTES = " WHERE runtime_ledger.state <> 'noted' AND "
_PARTS = {
    GroupBy.ROLE: "runtime_ledger.role",
    GroupBy.PRINCIPAL: "runtime_ledger.principal_id",
    GroupBy.RUN: "runtime_ledger.run_id",
    GroupBy.MODEL: "CASE WHEN calls.model IS NULL THEN '' ELSE calls.provider || '/' || calls.model END",
    GroupBy.DAY: "runtime_ledger.at_second - runtime_ledger.at_second % 86400",
    GroupBy.HOUR: "runtime_ledger.at_second - runtime_ledger.at_second % 3600",
}


def usage(scope_id: str, which: EventFilter, by: GroupBy, after: GroupCursor | None, limit: int) -> Op[GroupPage]:
    """At most `limit` groups of the events that pass, and the sums of all; zeros without an event."""
    clauses, params = where(scope_id, which)
    [row] = yield Sql("SELECT " + _COLUMNS + _FROM + _NOT_NOTES + clauses, tuple(params))
    rank = ("part",) if by in (GroupBy.DAY, GroupBy.HOUR) else ("most_cost_micro", "most_total_tokens", "part")
    text = "SELECT * FROM (" + _grouped(by) + clauses + " GROUP BY 1) AS parts"
    if after is not None:
        text += f" WHERE ({', '.join(rank)}) < ({', '.join('?' * len(rank))})"
        params += [after.cost_micro, after.tokens, after.part][-len(rank) :]
    text += f" ORDER BY {', '.join(f'{name} DESC' for name in rank)} LIMIT ?"
    rows = yield Sql(text, (*params, limit + 1))
    found = [UsageGroup(part, _sums(sums)) for part, _, _, *sums in rows[:limit]]
    if len(rows) <= limit:
        return GroupPage(_sums(row), found, None)
    part, cost_micro, tokens, *_ = rows[limit - 1]
    return GroupPage(_sums(row), found, GroupCursor(part, int(cost_micro), int(tokens)))


def _grouped(by: GroupBy) -> str:
    table = _FROM + (_CALLS if by is GroupBy.MODEL else "")
    return f"SELECT {_PARTS[by]} AS part, {_MOST}, {_COLUMNS}{table}{_NOT_NOTES}"


def _sums(row: Sequence[Any]) -> UsageSums:
    return UsageSums(**{name: int(value) for name, value in zip(_NAMES, row, strict=True)})
