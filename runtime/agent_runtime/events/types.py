"""What one event is."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from runtime_core.context import CallerId, ScopeId, UtcTime
from runtime_core.ids import RandomIds

_IDS = RandomIds()


class RuntimeEventType(StrEnum):
    """What happened. The part before the dot is what it happened to."""

    JOB_CREATED = "job.created"
    JOB_STARTED = "job.started"
    JOB_PROGRESS = "job.progress"
    JOB_WAITING_ACTION = "job.waiting_action"
    JOB_RESUMED = "job.resumed"
    JOB_COMPLETED = "job.completed"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    JOB_TIMED_OUT = "job.timed_out"
    ACTION_REQUIRED = "action.required"
    ACTION_RESOLVED = "action.resolved"
    ACTION_EXPIRED = "action.expired"
    ACTION_CANCELLED = "action.cancelled"
    RUN_STARTED = "run.started"
    RUN_COMPLETED = "run.completed"
    RUN_FAILED = "run.failed"
    MODEL_STARTED = "model.started"
    MODEL_DELTA = "model.delta"
    MODEL_COMPLETED = "model.completed"
    MODEL_FAILED = "model.failed"
    TOOL_STARTED = "tool.started"
    TOOL_COMPLETED = "tool.completed"
    TOOL_FAILED = "tool.failed"
    OPERATOR_STARTED = "operator.started"
    OPERATOR_COMPLETED = "operator.completed"
    OPERATOR_FAILED = "operator.failed"
    POLICY_DENIED = "policy.denied"
    POLICY_WARNED = "policy.warned"
    BUDGET_EXCEEDED = "budget.exceeded"


class RuntimeEvent(BaseModel):
    """One thing that happened. `data` is JSON and holds no secret: events leave the process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: RuntimeEventType
    event_id: str = Field(default_factory=lambda: _IDS.new("event"))
    at: UtcTime = Field(default_factory=lambda: datetime.now(UTC))
    scope_id: ScopeId = "default"
    job_id: CallerId | None = None
    run_id: CallerId | None = None
    session_id: CallerId | None = None
    action_id: CallerId | None = None
    trace_id: str | None = None
    data: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
