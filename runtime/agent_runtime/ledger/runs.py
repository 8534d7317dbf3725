"""The budget of one run, as operations: it is there before the run's first call, and gone after its last.

Each has a lease, so that the budget of a run whose process died goes as well, and with it what was held for the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent_runtime.ledger import budget_ops, holds
from agent_runtime.ledger.amounts import MEASURES, Amounts
from agent_runtime.ledger.budgets import Account, Budget
from agent_runtime.ledger.counters import count, counted_in, places_in
from agent_runtime.ledger.decide import Refusal
from agent_runtime.ledger.records import HOLD, Entry, EventState, Used
from agent_runtime.ledger.schema import RESERVED, TAKEN
from agent_runtime.ledger.windows import Window
from runtime_core.stores.sql import Op, Sql

_THERE = "SELECT run_id FROM ledger_runs WHERE scope_id = ? AND run_id = ?"
_BEGIN = "INSERT INTO ledger_runs (scope_id, run_id, parent_run_id, holds, lease_until) VALUES (?, ?, ?, ?, ?)"
_RENEW = "UPDATE ledger_runs SET lease_until = ? WHERE scope_id = ? AND run_id = ? AND lease_until < ?"
_DUE = "SELECT scope_id, run_id FROM ledger_runs WHERE lease_until <= ? ORDER BY lease_until LIMIT ?"
_GONE = "DELETE FROM ledger_runs WHERE scope_id = ? AND run_id = ? RETURNING parent_run_id, holds"
_NO_BUDGET = "DELETE FROM ledger_budgets WHERE scope_id = ? AND principal_id = '' AND role = '' AND run_id = ?"
_NO_COUNTERS = "DELETE FROM ledger_counters WHERE scope_id = ? AND principal_id = '' AND role = '' AND run_id = ?"
_BUDGET = (
    "SELECT budget FROM ledger_budgets"
    " WHERE scope_id = ? AND principal_id = '' AND role = '' AND run_id = ? AND removed = 0"
)
# What runs below a run have used: their events name its counter, which is gone.
_BELOW = (
    "SELECT counted, state, "
    + ", ".join((*TAKEN, *RESERVED))
    + " FROM runtime_ledger WHERE scope_id = ? AND timestamp >= ? AND at_second >= ? AND run_id <> ?"
    " AND state <> 'noted' AND counted LIKE ? ESCAPE '!'"
)
CLOCKS_APART_S = 60.0
"""Events of another machine may be as much older than what came before them."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """A run that begins with a budget, which is that of a run. `holds` takes all of it from the budgets above now.

    `since` is for a run that is done again: when it was begun first, in seconds. What the runs below it have used since
    then counts, as its own calls do.
    """

    budget: Budget
    principal_id: str
    at: float
    lease_until: float
    holds: bool = False
    since: float | None = None


def begin(run: Beginning) -> Op[Refusal | None]:
    """Nothing is stored where the refusal is not None; the same run again only moves its lease."""
    budget = run.budget
    place = (budget.scope_id, budget.run_id or "")
    if (yield Sql(_THERE, place)):
        yield from renew(*place, run.lease_until)
        return None
    parent = budget.parent_run_id or ""
    if parent and not (yield Sql(_THERE, (budget.scope_id, parent))):
        return holds.run_over(Account(budget.scope_id, run_id=parent))
    if run.holds:
        tokens, cost_micro = holds.held_of(budget.model_dump_json())
        entry = Entry(
            scope_id=budget.scope_id,
            event_id=holds.hold_id(place[1]),
            type=HOLD,
            at=run.at,
            most=Amounts(tokens=tokens, cost_micro=cost_micro),
            principal_id=run.principal_id,
            run_id=parent or None,
            budgeted=bool(parent),
        )
        refusal = yield from holds.reserve(entry)
        if refusal is not None:
            return refusal
    yield from budget_ops.store_budget(budget, run.at)
    if run.since is not None:
        yield from _count_below(*place, run.since)
    yield Sql(_BEGIN, (*place, parent, int(run.holds), run.lease_until), counts=True)
    return None


def _count_below(scope_id: str, run_id: str, since: float) -> Op[None]:
    """Add to the run's new counter, which knows the run's own events, what was counted there before it went."""
    since -= CLOCKS_APART_S
    place = ("", "", run_id, Window.TOTAL.value)
    alone = counted_in([place])
    like = "%" + alone.replace("!", "!!").replace("%", "!%").replace("_", "!_") + "%"
    sums = [0] * (2 * len(MEASURES))
    for counted, state, *amounts in (yield Sql(_BELOW, (scope_id, since, int(since), run_id, like))):
        if place in places_in(counted):
            half = len(MEASURES) if state == EventState.RESERVED else 0
            for index, amount in enumerate(amounts[half:][: len(MEASURES)]):
                sums[half + index] += int(amount)
    yield from count(scope_id, alone, tuple(sums))


def finish(scope_id: str, run_id: str, now: float) -> Op[None]:
    """Give back what is still held, and forget the budget and its counters; what was used stays in the ledger."""
    rows = yield Sql(_GONE, (scope_id, run_id))
    if not rows:
        return
    parent, is_held = rows[0]
    if is_held:
        released = Used(EventState.RELEASED, now, Amounts())
        yield from holds.end(scope_id, holds.hold_id(run_id), released, run_id=parent or None)
    yield Sql(_NO_BUDGET, (scope_id, run_id), counts=True)
    yield Sql(_NO_COUNTERS, (scope_id, run_id), counts=True)


def renew(scope_id: str, run_id: str, lease_until: float) -> Op[bool]:
    """Move the lease forward, never back; False if the run's budget is gone."""
    yield Sql(_RENEW, (lease_until, scope_id, run_id, lease_until), counts=True)
    return bool((yield Sql(_THERE, (scope_id, run_id))))


def expire(now: float, limit: int) -> Op[int]:
    """`finish` for up to `limit` runs of all scopes that nobody renewed in time; how many."""
    rows = yield Sql(_DUE, (now, limit))
    for scope_id, run_id in rows:
        yield from finish(scope_id, run_id, now)
    return len(rows)


def raise_limits(scope_id: str, run_id: str, limits: Mapping[str, object], now: float) -> Op[Budget | None]:
    """The run's budget with these limits where they are higher; None if it has none. Limits of it alone are raised."""
    rows = yield Sql(_BUDGET, (scope_id, run_id))
    if not rows:
        return None
    there = Budget.model_validate_json(rows[0][0])
    wanted = Budget.model_validate({**there.model_dump(), **limits})
    higher = {
        name: getattr(wanted, name)
        for name in limits
        if getattr(there, name) is not None and getattr(wanted, name) > getattr(there, name)
    }
    raised = there.model_copy(update=higher)
    if higher:
        yield from budget_ops.store_budget(raised, now)
    return raised
