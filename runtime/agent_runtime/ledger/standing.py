"""How budgets stand: of every limit, what is spent, reserved and left in the window that is open now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from agent_runtime.ledger.budgets import Account
from agent_runtime.ledger.counters import applying_to
from agent_runtime.ledger.decide import Applying, Check
from agent_runtime.ledger.windows import Window, ends_at
from agent_runtime.stores import from_seconds
from runtime_core.stores.sql import Op, Sql, SqlValue


class LimitStanding(BaseModel):
    """`limit` is the field of the Budget; amounts are in whole units of `measure`, such as cost_micro (millionths of a
    dollar) or runtime_ms. A limit of single requests has nothing spent, reserved or left: those are None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: str
    measure: str
    window: Window
    most: int
    spent: int | None = None
    reserved: int | None = None
    left: int | None = None
    resets_at: datetime | None = None


class BudgetStanding(BaseModel):
    """A budget of the scope itself, or of a principal, a role, a run, or several of these together."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scope_id: str
    principal_id: str | None
    role: str | None
    run_id: str | None
    parent_run_id: str | None
    limits: tuple[LimitStanding, ...]


@dataclass(frozen=True, slots=True)
class BudgetFilter:
    """Which budgets; None does not filter. Those of single runs, one for each run that has one, only with `runs`."""

    principal_id: str | None = None
    role: str | None = None
    run_id: str | None = None
    runs: bool = False


@dataclass(frozen=True, slots=True)
class BudgetPage:
    """The scope's own first, then by principal, role and run; `next` is None on the last page."""

    budgets: list[BudgetStanding]
    next: Account | None


def budgets(scope_id: str, which: BudgetFilter, now: float, after: Account | None, limit: int) -> Op[BudgetPage]:
    """At most `limit` budgets, as they stand at `now`."""
    text = "SELECT principal_id, role, run_id, parent_run_id FROM ledger_budgets WHERE scope_id = ? AND removed = 0"
    params: list[SqlValue] = [scope_id]
    for clause, value in (
        (" AND principal_id = ?", which.principal_id),
        (" AND role = ?", which.role),
        (" AND run_id = ?", which.run_id if which.run_id is not None or which.runs else ""),
    ):
        if value is not None:
            text += clause
            params.append(value)
    if after is not None:
        text += " AND (principal_id, role, run_id) > (?, ?, ?)"
        params += [after.principal_id, after.role, after.run_id]
    rows = yield Sql(text + " ORDER BY principal_id, role, run_id LIMIT ?", (*params, limit + 1))
    parents = {Account(scope_id, *whose): parent_run_id for *whose, parent_run_id in rows[:limit]}
    applying = (yield from applying_to(parents, int(now))) if parents else {}
    found: list[BudgetStanding] = []
    for account, parent_run_id in parents.items():
        own = next(each for each in applying[account] if each.account == account)
        found.append(_standing(own, parent_run_id, int(now)))
    last = Account(scope_id, *rows[limit - 1][:3]) if len(rows) > limit else None
    return BudgetPage(found, last)


def _standing(budget: Applying, parent_run_id: str, at: int) -> BudgetStanding:
    account = budget.account
    return BudgetStanding(
        scope_id=account.scope_id,
        principal_id=account.principal_id or None,
        role=account.role or None,
        run_id=account.run_id or None,
        parent_run_id=parent_run_id or None,
        limits=tuple(_limit(budget, check, at) for check in budget.rules.checks),
    )


def _limit(budget: Applying, check: Check, at: int) -> LimitStanding:
    limit, measure, name = check
    facts = {"limit": limit.name, "measure": limit.measure, "window": limit.window, "most": limit.most}
    if name is None:
        return LimitStanding.model_validate(facts)
    counter = budget.counters[name]
    spent, reserved = counter.spent[measure], counter.reserved[measure]
    resets_at = from_seconds(ends_at(limit.window, at))
    left = max(0, limit.most - spent - reserved)
    return LimitStanding.model_validate(
        {**facts, "spent": spent, "reserved": reserved, "left": left, "resets_at": resets_at}
    )
