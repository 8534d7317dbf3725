"""What stands in a run store of questions to people, as JSON: the same at the command line and over HTTP."""

from __future__ import annotations

from typing import Any

from agent_runtime.actions.records import ActionRecord
from agent_runtime.actions.store import ActionCursor
from agentflow_serve.cursors import cursor_of, place_of

_NO_YEAR = 253_402_300_800
"""The second after the year 9999, since the epoch: no store of times has it."""


def actions_document(found: list[ActionRecord], limit: int) -> dict[str, Any]:
    """A page of at most `limit` actions, and where the next one begins; `found` has one more if there is a next one."""
    shown = found[:limit]
    place = [shown[-1].created_at.timestamp(), shown[-1].action_id] if len(found) > limit else None
    return {"actions": [each.model_dump(mode="json") for each in shown], "next": cursor_of(place)}


def action_cursor(text: str) -> ActionCursor:
    """Raises ValueError for a cursor that no page of actions has given."""
    created_at, action_id = place_of(text, float, str)
    if not 0 <= created_at < _NO_YEAR:
        raise ValueError("not a cursor")
    return ActionCursor(created_at, action_id)
