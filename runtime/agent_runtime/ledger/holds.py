"""What is held back for a whole run, and how its calls draw on it.

A hold is an entry of the ledger: reserved for everybody above the run, which are its scope, its principal and the runs
that started it. A call gives back to them, out of the hold, what it reserves itself, in the same transaction: the two
never count together. What the call did not use goes back to the hold, as long as the run's own budget has room for it.
So what is spent, reserved and held for a run is never more than its budget, and never less while nobody is too quick.

A hold counts in the minute, day and month in which it was made. A call in a later one needs its own room there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from agent_runtime.ledger import ops
from agent_runtime.ledger.budgets import Account, Budget
from agent_runtime.ledger.counters import MOST_ANCESTORS, shift_reserved
from agent_runtime.ledger.decide import Refusal
from agent_runtime.ledger.ops import Row
from agent_runtime.ledger.records import Entry, Used
from agent_runtime.ledger.windows import Window
from runtime_core.stores.sql import Op, Sql

_HOLD = "hold "
_CHAIN = (
    # The name of the hold is made here: in the join below row-level security would keep it from the index.
    "WITH RECURSIVE chain (run_id, parent_run_id, hold_id, depth) AS ("
    f" SELECT run_id, parent_run_id, '{_HOLD}' || run_id, 0 FROM ledger_budgets"
    " WHERE scope_id = ? AND principal_id = '' AND role = '' AND run_id = ? AND run_id <> ''"
    f" UNION ALL SELECT b.run_id, b.parent_run_id, '{_HOLD}' || b.run_id, c.depth + 1 FROM chain c"
    " JOIN ledger_budgets b ON b.scope_id = ? AND b.principal_id = '' AND b.role = '' AND b.run_id = c.parent_run_id"
    f" WHERE c.parent_run_id <> '' AND c.depth < {MOST_ANCESTORS})"
    " SELECT b.budget, COALESCE(n.spent_tokens + n.reserved_tokens, 0),"
    " COALESCE(n.spent_cost_micro + n.reserved_cost_micro, 0),"
    " h.event_id, h.counted, h.reserved_tokens, h.reserved_cost_micro"
    " FROM chain c JOIN ledger_budgets b ON b.scope_id = ? AND b.principal_id = '' AND b.role = ''"
    " AND b.run_id = c.run_id"
    " LEFT JOIN ledger_counters n ON n.scope_id = b.scope_id AND n.principal_id = '' AND n.role = ''"
    " AND n.run_id = b.run_id AND n.period = 'total'"
    " LEFT JOIN runtime_ledger h ON h.scope_id = b.scope_id AND h.event_id = c.hold_id"
    " AND h.state = 'reserved' ORDER BY c.depth"
)
_TAKEN = "SELECT total_tokens, cost_micro FROM runtime_ledger WHERE scope_id = ? AND event_id = ?"
_SHIFT_HOLD = (
    "UPDATE runtime_ledger SET reserved_tokens = reserved_tokens + ?, reserved_cost_micro = reserved_cost_micro + ?,"
    " total_tokens = total_tokens + ?, cost_micro = cost_micro + ? WHERE scope_id = ? AND event_id = ?"
)

Pair = tuple[int, int]
"""Tokens, and millionths of a dollar."""


@dataclass(frozen=True, slots=True)
class _Held:
    """A run's hold; `room` is what the run's own budget has left, of which it is a part; `counted` is as in its row."""

    event_id: str
    counted: str
    amount: Pair
    room: Pair


def hold_id(run_id: str) -> str:
    """The event that holds a run's budget."""
    return _HOLD + run_id


def reserve(entry: Entry) -> Op[Refusal | None]:
    """`ops.reserve`; for an entry of a budgeted run out of what is held for it, and only while that run's budget is.

    Raises StoreConflictError if the id is another entry's.
    """
    if not entry.budgeted:
        return (yield from ops.reserve(entry))
    chain = yield from _chain(entry.scope_id, entry.run_id or "")
    holds = [held for held in chain if held is not None]
    if chain and not holds:
        return (yield from ops.reserve(entry))
    if (yield Sql(_TAKEN, (entry.scope_id, entry.event_id))):
        return (yield from ops.reserve(entry))
    if not chain:
        return run_over(entry.account)
    wanted = (entry.most.tokens, entry.most.cost_micro)
    drawn: list[tuple[_Held, Pair]] = []
    for held in holds:
        draw = _least(held.amount, wanted)
        wanted = _minus(wanted, draw)
        drawn.append((held, draw))
        yield from _shift(entry.scope_id, held, _minus((0, 0), draw))
    refusal = yield from ops.reserve(entry)
    if refusal is not None:
        for held, draw in drawn:
            yield from _shift(entry.scope_id, held, draw)
    return refusal


def end(scope_id: str, event_id: str, used: Used, *, run_id: str | None) -> Op[Row | None]:
    """`ops.end` for an entry of the budgeted run `run_id`; what it did not use is held again."""
    chain = [] if run_id is None else (yield from _chain(scope_id, run_id))
    if run_id is None or not any(chain):
        return (yield from ops.end(scope_id, event_id, used))
    before = yield Sql(_TAKEN, (scope_id, event_id))
    ended = yield from ops.end(scope_id, event_id, used)
    after = yield Sql(_TAKEN, (scope_id, event_id))
    if ended is None or before == after:
        return ended
    (b_tokens, b_cost), (a_tokens, a_cost) = before[0], after[0]
    freed = (b_tokens - a_tokens, b_cost - a_cost)
    moved = (0, 0)
    for held in (yield from _chain(scope_id, run_id)):
        if held is None:
            continue
        # A hold inside has grown or shrunk by `moved`, which the budgets around it count as taken.
        room = _most(_minus(held.room, moved), (0, 0))
        wanted = _most(_plus(held.amount, freed), held.amount)
        change = _minus(_least(wanted, room), held.amount)
        yield from _shift(scope_id, held, change)
        freed = _minus(freed, _most(change, (0, 0)))
        moved = _plus(moved, change)
    return ended


def run_over(account: Account) -> Refusal:
    """For what a run wants to use that has ended, or whose process was away for longer than the lease of its budget."""
    text = (
        f"The budget of {account} is not there any more: the run is over, nobody renewed it in time, or the replicas of"
        " this app do not share a run store."
    )
    return Refusal(text, "run_over", account, "run", Window.TOTAL)


def _chain(scope_id: str, run_id: str) -> Op[list[_Held | None]]:
    """The run and those above it, each with its hold or None; empty for a run without a budget."""
    rows = yield Sql(_CHAIN, (scope_id, run_id, scope_id, scope_id))
    chain: list[_Held | None] = []
    for budget, tokens, cost, event_id, counted, held_tokens, held_cost in rows:
        if event_id is None:
            chain.append(None)
            continue
        room = _minus(held_of(budget), (int(tokens), int(cost)))
        amount = (held_tokens, held_cost)
        chain.append(_Held(event_id, counted, amount, room))
    return chain


@lru_cache(maxsize=1024)
def held_of(budget: str) -> Pair:
    """What a stored budget of a run lets it hold: its limits in tokens and money, 0 where there is none."""
    most = {
        limit.measure: limit.most for limit in Budget.model_validate_json(budget).limits() if _is_total(limit.window)
    }
    return most.get("tokens", 0), most.get("cost_micro", 0)


def _is_total(window: Window) -> bool:
    return window is Window.TOTAL


def _shift(scope_id: str, held: _Held, change: Pair) -> Op[None]:
    """Change the hold, and everybody's counters that count it."""
    if change == (0, 0):
        return
    yield from shift_reserved(scope_id, held.counted, *change)
    yield Sql(_SHIFT_HOLD, (*change, *change, scope_id, held.event_id), counts=True)


def _least(one: Pair, other: Pair) -> Pair:
    return min(one[0], other[0]), min(one[1], other[1])


def _most(one: Pair, other: Pair) -> Pair:
    return max(one[0], other[0]), max(one[1], other[1])


def _plus(one: Pair, other: Pair) -> Pair:
    return one[0] + other[0], one[1] + other[1]


def _minus(one: Pair, other: Pair) -> Pair:
    return one[0] - other[0], one[1] - other[1]
