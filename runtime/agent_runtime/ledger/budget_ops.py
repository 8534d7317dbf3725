"""Setting, removing and listing budgets, as operations."""

from __future__ import annotations

import json

from agent_runtime.ledger import ops
from agent_runtime.ledger.budgets import Account, Budget
from agent_runtime.ledger.counters import applying, store_fresh
from agent_runtime.ledger.records import BUDGET_REMOVED, BUDGET_SET
from agent_runtime.ledger.schema import RESERVED
from runtime_core.stores.sql import Op, Sql

_SET = (
    "INSERT INTO ledger_budgets (scope_id, principal_id, role, run_id, parent_run_id, budget, set_at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (scope_id, principal_id, role, run_id) DO UPDATE"
    " SET parent_run_id = CASE WHEN excluded.parent_run_id = '' THEN ledger_budgets.parent_run_id"
    " ELSE excluded.parent_run_id END, budget = excluded.budget, set_at = excluded.set_at, removed = 0"
)
_REMOVE = (
    "UPDATE ledger_budgets SET removed = 1"
    " WHERE scope_id = ? AND principal_id = ? AND role = ? AND run_id = ? AND removed = 0"
)
_TABLES = ("ledger_budgets", "ledger_counters")
_DELETE = "DELETE FROM {table} WHERE scope_id = ? AND principal_id = ? AND role = ? AND run_id = ?"
_GOES_ON = "SELECT run_id FROM ledger_runs WHERE scope_id = ? AND run_id = ?"
_LIST = (
    "SELECT budget FROM ledger_budgets WHERE scope_id = ? AND removed = 0"
    " AND (principal_id, role, run_id) > (?, ?, ?) ORDER BY principal_id, role, run_id LIMIT ?"
)
_FIRST = (
    "SELECT budget FROM ledger_budgets WHERE scope_id = ? AND removed = 0 ORDER BY principal_id, role, run_id LIMIT ?"
)
_FORGET_COUNTERS = (
    "DELETE FROM ledger_counters WHERE (scope_id, principal_id, role, run_id, period) IN"
    " (SELECT scope_id, principal_id, role, run_id, period FROM ledger_counters WHERE ends_at < ? AND "
    + " AND ".join(f"{name} = 0" for name in RESERVED)
    + " ORDER BY ends_at LIMIT ?)"
)


def set_budget(budget: Budget, event_id: str, now: float) -> Op[None]:
    """From now on; what the current windows have seen already counts."""
    text = yield from store_budget(budget, now)
    yield from ops.note(budget.account, event_id, BUDGET_SET, now, text)


def store_budget(budget: Budget, now: float) -> Op[str]:
    """`set_budget` without an audit event; the text that was stored."""
    account = budget.account
    text = budget.model_dump_json(exclude_none=True)
    yield Sql(_SET, (*_place(account), budget.parent_run_id or "", text, now))
    for each in (yield from applying(account, int(now))):
        if each.account == account:
            yield from store_fresh(each, int(now))
    return text


def remove_budget(account: Account, event_id: str, now: float) -> Op[bool]:
    """False if there was none. Its counters go on counting, so that setting it again forgets nothing.

    That of a run which is not going on goes with its counters: nobody else would ever delete them.
    """
    [(removed,)] = yield Sql(_REMOVE, _place(account), counts=True)
    if removed:
        if account.run_id and not (yield Sql(_GOES_ON, (account.scope_id, account.run_id))):
            for table in _TABLES:
                yield Sql(_DELETE.format(table=table), _place(account), counts=True)
        yield from ops.note(account, event_id, BUDGET_REMOVED, now, json.dumps(str(account)))
    return bool(removed)


def list_budgets(scope_id: str, after: Account | None, limit: int) -> Op[list[Budget]]:
    """The scope's own first, then by principal, role and run."""
    if after is None:
        rows = yield Sql(_FIRST, (scope_id, limit))
    else:
        rows = yield Sql(_LIST, (*_place(after), limit))
    return [Budget.model_validate_json(text) for (text,) in rows]


def forget_counters(now: float, limit: int) -> Op[int]:
    """Delete up to `limit` counters whose window ended before `now` and that hold nothing back; how many."""
    [(gone,)] = yield Sql(_FORGET_COUNTERS, (int(now), limit), counts=True)
    return gone


def _place(account: Account) -> tuple[str, str, str, str]:
    return (account.scope_id, account.principal_id, account.role, account.run_id)
