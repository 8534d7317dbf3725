"""What a ledger says, as JSON: the same at the command line and over HTTP. docs/ledger.md lists the fields."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from agent_runtime.ledger.attempts import AttemptPage
from agent_runtime.ledger.budgets import Account
from agent_runtime.ledger.finds import EventFilter
from agent_runtime.ledger.standing import BudgetPage
from agent_runtime.ledger.usage import GroupBy, GroupCursor, GroupPage
from agentflow_serve.cursors import cursor_of, place_of
from runtime_core.call_log.finds import Cursor


def usage_document(scope_id: str, which: EventFilter, by: GroupBy, page: GroupPage) -> dict[str, Any]:
    groups = [{"group": group_name(by, each.part), **each.sums.model_dump()} for each in page.groups]
    place = None if page.next is None else [page.next.part, page.next.cost_micro, page.next.tokens]
    return {
        "scope_id": scope_id,
        "since": _iso(which.since),
        "until": _iso(which.until),
        "by": by.value,
        "total": page.total.model_dump(),
        "groups": groups,
        "next": cursor_of(place),
    }


def attempts_document(scope_id: str, page: AttemptPage) -> dict[str, Any]:
    place = None if page.next is None else [page.next.reserved_at, page.next.attempt_id]
    lines = [each.model_dump(mode="json") for each in page.attempts]
    return {"scope_id": scope_id, "attempts": lines, "next": cursor_of(place)}


def budgets_document(scope_id: str, page: BudgetPage) -> dict[str, Any]:
    last = page.next
    place = None if last is None else [last.principal_id, last.role, last.run_id]
    lines = [each.model_dump(mode="json", exclude={"scope_id"}) for each in page.budgets]
    return {"scope_id": scope_id, "budgets": lines, "next": cursor_of(place)}


def group_name(by: GroupBy, part: str | int) -> str | None:
    """How a group is called: a day and an hour by when it began, None where there is no role, run or model."""
    if isinstance(part, str):
        return part or None
    return datetime.fromtimestamp(part, UTC).strftime("%Y-%m-%d" if by is GroupBy.DAY else "%Y-%m-%dT%H:00Z")


def group_cursor(text: str, by: GroupBy) -> GroupCursor:
    """Raises ValueError for a cursor that no page of such groups has given; the others do the same."""
    part, cost_micro, tokens = place_of(text, int if by in (GroupBy.DAY, GroupBy.HOUR) else str, int, int)
    return GroupCursor(part, cost_micro, tokens)


def attempt_cursor(text: str) -> Cursor:
    reserved_at, attempt_id = place_of(text, float, str)
    return Cursor(reserved_at, attempt_id)


def budget_cursor(text: str, scope_id: str) -> Account:
    principal_id, role, run_id = place_of(text, str, str, str)
    return Account(scope_id, principal_id, role, run_id)


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
