"""What a job is, and what is kept of it.

queued -> running -> succeeded
                  -> waiting_action -> running
queued, running, waiting_action -> failed | cancelled | timed_out
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from runtime_core.context import BudgetSpec, CallerId, PolicyRef, RunVersions, ScopeId, UtcTime

MAX_KEY_CHARS = 255

IdempotencyKey = Annotated[str, StringConstraints(min_length=1, max_length=MAX_KEY_CHARS, pattern=r"^[^\x00-\x1f]*$")]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class JobStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    WAITING_ACTION = "waiting_action"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"

    @property
    def is_terminal(self) -> bool:
        return self in _TERMINAL


_TERMINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.TIMED_OUT})


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class JobSpec(_Frozen):
    """A job that is wanted. `scope_id` None is the manager's own scope.

    A second job with the `idempotency_key` of a first one is that first one; `request_hash` tells another request
    with the same key. `deadline` bounds the job from outside, `timeout_seconds` from its creation on: the earlier
    one counts. `parent_job_id` is the job that started this one and takes it along when it is cancelled.
    """

    scope_id: ScopeId | None = None
    principal_id: CallerId = "anonymous"
    session_id: CallerId | None = None
    run_id: CallerId | None = None
    parent_job_id: CallerId | None = None
    idempotency_key: IdempotencyKey | None = None
    request_hash: str | None = None
    deadline: UtcTime | None = None
    timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    budgets: BudgetSpec | None = None
    policy_ref: PolicyRef | None = None
    versions: RunVersions | None = None
    metadata: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    tags: tuple[str, ...] = ()


class JobFailure(_Frozen):
    """Why a job did not succeed: `code` for machines, `message` for people."""

    code: str
    message: str


class JobRecord(_Frozen):
    """A job as it is stored. `version` grows with every change; times are UTC.

    `owner` is the worker that holds the job until `lease_until`; later another one may take over, and `attempt`
    counts how often that began. `waiting_on` are the open actions of a job that waits.
    """

    scope_id: ScopeId
    job_id: CallerId
    principal_id: CallerId = "anonymous"
    session_id: CallerId | None = None
    run_id: CallerId | None = None
    parent_job_id: CallerId | None = None
    idempotency_key: IdempotencyKey | None = None
    request_hash: str | None = None
    status: JobStatus = JobStatus.QUEUED
    created_at: UtcTime
    updated_at: UtcTime
    started_at: UtcTime | None = None
    completed_at: UtcTime | None = None
    deadline: UtcTime | None = None
    progress: Fraction = 0.0
    budgets: BudgetSpec | None = None
    policy_ref: PolicyRef | None = None
    versions: RunVersions | None = None
    metadata: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    tags: tuple[str, ...] = ()
    result_ref: str | None = None
    error: JobFailure | None = None
    waiting_on: tuple[str, ...] = ()
    owner: str | None = None
    lease_until: UtcTime | None = None
    attempt: int = 0
    version: int = 1

    @property
    def is_terminal(self) -> bool:
        return self.status.is_terminal

    def is_overdue(self, now: datetime) -> bool:
        """Whether it should have ended by its deadline, and has not."""
        return not self.is_terminal and self.deadline is not None and self.deadline <= now

    def changed(self, **changes: Any) -> JobRecord:
        """The next version; `changes` are not validated again."""
        return self.model_copy(update={**changes, "version": self.version + 1})


def new_job(
    spec: JobSpec, *, scope_id: str, job_id: str, now: datetime, owner: str, lease_until: datetime
) -> JobRecord:
    """The queued job of a spec. Until `lease_until`, `owner` is expected to start it."""
    facts = {name: value for name, value in spec if name not in ("scope_id", "timeout_seconds", "deadline")}
    deadline = spec.deadline
    if spec.timeout_seconds is not None:
        own = now + timedelta(seconds=spec.timeout_seconds)
        deadline = own if deadline is None else min(deadline, own)
    return JobRecord(
        scope_id=scope_id,
        job_id=job_id,
        created_at=now,
        updated_at=now,
        deadline=deadline,
        owner=owner,
        lease_until=lease_until,
        **facts,
    )
