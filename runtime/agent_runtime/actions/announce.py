"""What the event bus hears of an action: never its token, and nothing that was asked or answered."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from agent_runtime.actions.records import ActionRecord, ActionStatus
from agent_runtime.events.types import RuntimeEvent, RuntimeEventType

_SETTLED: Mapping[ActionStatus, RuntimeEventType] = MappingProxyType(
    {
        ActionStatus.RESOLVED: RuntimeEventType.ACTION_RESOLVED,
        ActionStatus.EXPIRED: RuntimeEventType.ACTION_EXPIRED,
        ActionStatus.CANCELLED: RuntimeEventType.ACTION_CANCELLED,
    }
)


def required(action: ActionRecord) -> RuntimeEvent:
    return _event(RuntimeEventType.ACTION_REQUIRED, action)


def settled(action: ActionRecord) -> RuntimeEvent:
    return _event(_SETTLED[action.status], action)


def _event(kind: RuntimeEventType, action: ActionRecord) -> RuntimeEvent:
    return RuntimeEvent(
        type=kind,
        at=action.resolved_at or action.created_at,
        scope_id=action.scope_id,
        job_id=action.job_id,
        action_id=action.action_id,
        data={"type": action.type, "status": action.status.value},
    )
