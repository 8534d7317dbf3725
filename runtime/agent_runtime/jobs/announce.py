"""What the event bus hears of a job."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import JsonValue

from agent_runtime.events.types import RuntimeEvent, RuntimeEventType
from agent_runtime.jobs.machine import ActionSettled, JobEvent, Progress, Start, WaitForAction
from agent_runtime.jobs.records import JobRecord, JobStatus

_ENDINGS: Mapping[JobStatus, RuntimeEventType] = MappingProxyType(
    {
        JobStatus.SUCCEEDED: RuntimeEventType.JOB_COMPLETED,
        JobStatus.FAILED: RuntimeEventType.JOB_FAILED,
        JobStatus.CANCELLED: RuntimeEventType.JOB_CANCELLED,
        JobStatus.TIMED_OUT: RuntimeEventType.JOB_TIMED_OUT,
    }
)


def created(job: JobRecord) -> RuntimeEvent:
    return _event(RuntimeEventType.JOB_CREATED, job)


def changed(job: JobRecord, event: JobEvent) -> RuntimeEvent | None:
    """What to say of a job that `event` has just changed; None if that is nobody's business."""
    if (ending := _ENDINGS.get(job.status)) is not None:
        return _event(ending, job)
    match event:
        case Start():
            return _event(RuntimeEventType.JOB_STARTED, job)
        case Progress():
            return _event(RuntimeEventType.JOB_PROGRESS, job)
        case WaitForAction(action_id):
            return _event(RuntimeEventType.JOB_WAITING_ACTION, job, action_id)
        case ActionSettled(action_id) if job.status is JobStatus.RUNNING:
            return _event(RuntimeEventType.JOB_RESUMED, job, action_id)
        case _:
            return None


def _event(kind: RuntimeEventType, job: JobRecord, action_id: str | None = None) -> RuntimeEvent:
    data: dict[str, JsonValue] = {"status": job.status.value, "progress": job.progress, "attempt": job.attempt}
    if job.result_ref is not None:
        data["result_ref"] = job.result_ref
    if job.error is not None:
        data["error"] = {"code": job.error.code, "message": job.error.message}
    if job.parent_job_id is not None:
        data["parent_job_id"] = job.parent_job_id
    return RuntimeEvent(
        type=kind,
        at=job.updated_at,
        scope_id=job.scope_id,
        job_id=job.job_id,
        run_id=job.run_id,
        session_id=job.session_id,
        action_id=action_id,
        data=data,
    )
