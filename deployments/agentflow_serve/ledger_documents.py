"""What a ledger says, as JSON: the same documents at the command line and over HTTP. docs/ledger.md lists their fields.

A cursor is where the next page begins, as text that means nothing to anybody else. It holds a place and no scope.
"""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime
from typing import Any

from agent_runtime.ledger.attempts import AttemptPage
from agent_runtime.ledger.budgets import Account
from agent_runtime.ledger.finds import EventFilter
from agent_runtime.ledger.standing import BudgetPage
from agent_runtime.ledger.usage import GroupBy, GroupCursor, GroupPage
from runtime_core.call_log.finds import Cursor

MOST_AT_ONCE = 1000
"""Groups, attempts or budgets in one document."""
_MOST_CURSOR = 8000
_INT64 = 2**63


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
        "next": _cursor(place),
    }


def attempts_document(scope_id: str, page: AttemptPage) -> dict[str, Any]:
    place = None if page.next is None else [page.next.reserved_at, page.next.attempt_id]
    lines = [each.model_dump(mode="json") for each in page.attempts]
    return {"scope_id": scope_id, "attempts": lines, "next": _cursor(place)}


def budgets_document(scope_id: str, page: BudgetPage) -> dict[str, Any]:
    last = page.next
    place = None if last is None else [last.principal_id, last.role, last.run_id]
    lines = [each.model_dump(mode="json", exclude={"scope_id"}) for each in page.budgets]
    return {"scope_id": scope_id, "budgets": lines, "next": _cursor(place)}


def group_name(by: GroupBy, part: str | int) -> str | None:
    """How a group is called: a day and an hour by when it began, None where there is no role, run or model."""
    if isinstance(part, str):
        return part or None
    return datetime.fromtimestamp(part, UTC).strftime("%Y-%m-%d" if by is GroupBy.DAY else "%Y-%m-%dT%H:00Z")


def group_cursor(text: str, by: GroupBy) -> GroupCursor:
    """Raises ValueError for a cursor that no page of such groups has given; the others do the same."""
    part, cost_micro, tokens = _place(text, int if by in (GroupBy.DAY, GroupBy.HOUR) else str, int, int)
    return GroupCursor(part, cost_micro, tokens)


def attempt_cursor(text: str) -> Cursor:
    reserved_at, attempt_id = _place(text, float, str)
    return Cursor(reserved_at, attempt_id)


def budget_cursor(text: str, scope_id: str) -> Account:
    principal_id, role, run_id = _place(text, str, str, str)
    return Account(scope_id, principal_id, role, run_id)


def _cursor(place: list[Any] | None) -> str | None:
    if place is None:
        return None
    return (
        base64.urlsafe_b64encode(json.dumps(place, ensure_ascii=False, separators=(",", ":")).encode())
        .decode()
        .rstrip("=")
    )


def _place(text: str, *kinds: type) -> list[Any]:
    if len(text) > _MOST_CURSOR or not text.isascii():
        raise ValueError("not a cursor")
    try:
        found = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError) as exc:
        raise ValueError("not a cursor") from exc
    if not isinstance(found, list) or [type(each) for each in found] != list(kinds):
        raise ValueError("not a cursor")
    if any(not _can_be_stored(each) for each in found):
        raise ValueError("not a cursor")
    return found


def _can_be_stored(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= char <= "\udfff" for char in value)
    return -_INT64 <= value < _INT64  # false for NaN and infinity too


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
