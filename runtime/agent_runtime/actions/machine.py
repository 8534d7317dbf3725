"""What may happen to an action: a pure function of the action, the event and the time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias, assert_never

from pydantic import JsonValue

from agent_runtime.actions.records import ActionRecord, ActionStatus
from agent_runtime.errors import ActionConflictError

PENDING, RESOLVED = ActionStatus.PENDING, ActionStatus.RESOLVED
EXPIRED, CANCELLED = ActionStatus.EXPIRED, ActionStatus.CANCELLED


@dataclass(frozen=True, slots=True)
class Resolve:
    """Somebody's answer. `answer_id` is unique to this answer, so that it may be sent twice and counts once."""

    resolution: dict[str, JsonValue]
    answer_id: str
    resolved_by: str | None = None


@dataclass(frozen=True, slots=True)
class Expire:
    """Look whether the time is up."""


@dataclass(frozen=True, slots=True)
class Withdraw:
    """The answer is not needed any more."""

    reason: str | None = None


@dataclass(frozen=True, slots=True)
class JobTold:
    """The job that waited knows."""


ActionEvent: TypeAlias = Resolve | Expire | Withdraw | JobTold


def transition(action: ActionRecord, event: ActionEvent, now: datetime) -> ActionRecord:
    """The action after the event; the same object if nothing changes.

    An action whose time is up expires, whatever is asked of it. Raises ActionConflictError for a second answer.
    """
    if action.is_overdue(now):
        return action.changed(status=EXPIRED, resolved_at=now)
    match event:
        case Resolve():
            if action.status is RESOLVED and action.answer_id == event.answer_id:
                return action
            if action.is_settled and action.status is not EXPIRED:
                raise ActionConflictError(
                    f"Action {action.action_id} is {action.status.value} already; an action has one answer.",
                    action_id=action.action_id,
                    status=action.status.value,
                )
            return action if action.is_settled else _resolved(action, event, now)
        case Expire():
            return action
        case Withdraw():
            if action.is_settled:
                return action
            return action.changed(status=CANCELLED, resolved_at=now, reason=event.reason)
        case JobTold():
            return action.changed(job_told=True) if action.is_settled and not action.job_told else action
        case _:
            assert_never(event)


def _resolved(action: ActionRecord, event: Resolve, now: datetime) -> ActionRecord:
    return action.changed(
        status=RESOLVED,
        resolution=event.resolution,
        resolved_by=event.resolved_by,
        resolved_at=now,
        answer_id=event.answer_id,
    )
