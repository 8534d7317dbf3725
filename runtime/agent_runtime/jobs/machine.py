"""What may happen to a job: a pure function of the job, the event and the time.

An event that the job already shows changes nothing, because callers repeat what may have been lost on the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, TypeAlias, assert_never

from agent_runtime.errors import JobStateError
from agent_runtime.jobs.records import JobFailure, JobRecord, JobStatus

QUEUED, RUNNING, WAITING = JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.WAITING_ACTION
SUCCEEDED, FAILED = JobStatus.SUCCEEDED, JobStatus.FAILED
CANCELLED, TIMED_OUT = JobStatus.CANCELLED, JobStatus.TIMED_OUT

_ENDS = frozenset({FAILED, CANCELLED, TIMED_OUT})
LEGAL: Mapping[JobStatus, frozenset[JobStatus]] = MappingProxyType(
    {
        QUEUED: _ENDS | {RUNNING},
        RUNNING: _ENDS | {WAITING, SUCCEEDED},
        WAITING: _ENDS | {RUNNING},
        **{status: frozenset[JobStatus]() for status in JobStatus if status.is_terminal},
    }
)
"""Where a job may go from each state."""

DEADLINE = JobFailure(code="deadline", message="The job's deadline passed.")


@dataclass(frozen=True, slots=True)
class Start:
    """`owner` works on the job from now on, and holds it until `lease_until`."""

    owner: str
    lease_until: datetime


@dataclass(frozen=True, slots=True)
class Renew:
    """`owner` still works on it."""

    owner: str
    lease_until: datetime


@dataclass(frozen=True, slots=True)
class WaitForAction:
    """The job cannot go on before that action is settled."""

    action_id: str


@dataclass(frozen=True, slots=True)
class ActionSettled:
    """The action was resolved, cancelled or expired; the job runs again after the last one that it waits on."""

    action_id: str


@dataclass(frozen=True, slots=True)
class Progress:
    """From 0 to 1."""

    fraction: float


@dataclass(frozen=True, slots=True)
class Look:
    """Nothing, but a deadline that has passed is noticed."""


@dataclass(frozen=True, slots=True)
class Succeed:
    """With `by`, only if that worker still holds the job."""

    result_ref: str | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Fail:
    """With `by`, only if that worker still holds the job."""

    failure: JobFailure
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    reason: str = "it was cancelled"


JobEvent: TypeAlias = Look | Start | Renew | WaitForAction | ActionSettled | Progress | Succeed | Fail | Cancel


def transition(job: JobRecord, event: JobEvent, now: datetime) -> JobRecord:
    """The job after the event; the same object if nothing changes.

    A job whose deadline has passed times out, whatever is asked of it. Raises JobStateError for what the job's
    state does not allow.
    """
    if job.is_overdue(now):
        return _ended(job, TIMED_OUT, now, error=DEADLINE)
    match event:
        case Look():
            return job
        case Start():
            return _start(job, event, now)
        case Renew():
            return _renew(job, event)
        case WaitForAction(action_id):
            return _wait(job, event, action_id, now)
        case ActionSettled(action_id):
            return _settled(job, action_id, now)
        case Progress(fraction):
            _demand(job, event, job.status in (RUNNING, WAITING))
            return job if job.progress == fraction else job.changed(progress=fraction, updated_at=now)
        case Succeed(result_ref, by):
            _demand(job, event, by is None or by == job.owner)
            if job.status is SUCCEEDED and job.result_ref == result_ref:
                return job
            return _end(job, event, SUCCEEDED, now, result_ref=result_ref, progress=1.0)
        case Fail(failure, by):
            _demand(job, event, by is None or by == job.owner)
            return job if job.status is FAILED else _end(job, event, FAILED, now, error=failure)
        case Cancel(reason):
            why = JobFailure(code="cancelled", message=reason)
            return job if job.status is CANCELLED else _end(job, event, CANCELLED, now, error=why)
        case _:
            assert_never(event)


def _start(job: JobRecord, event: Start, now: datetime) -> JobRecord:
    """A queued job, or one whose worker is gone. The same worker's start again is the same start."""
    if job.status is RUNNING:
        if job.owner == event.owner:
            return _renew(job, Renew(event.owner, event.lease_until))
        _demand(job, event, job.lease_until is not None and job.lease_until <= now)
    else:
        _demand(job, event, job.status is QUEUED)
    return job.changed(
        status=RUNNING,
        owner=event.owner,
        lease_until=event.lease_until,
        attempt=job.attempt + 1,
        started_at=job.started_at or now,
        updated_at=now,
    )


def _renew(job: JobRecord, event: Renew) -> JobRecord:
    _demand(job, event, not job.is_terminal and job.owner == event.owner)
    if job.lease_until is not None and job.lease_until >= event.lease_until:
        return job
    return job.changed(lease_until=event.lease_until)


def _wait(job: JobRecord, event: JobEvent, action_id: str, now: datetime) -> JobRecord:
    _demand(job, event, job.status in (RUNNING, WAITING))
    if action_id in job.waiting_on:
        return job
    return job.changed(status=WAITING, waiting_on=(*job.waiting_on, action_id), updated_at=now)


def _settled(job: JobRecord, action_id: str, now: datetime) -> JobRecord:
    """No error where nobody waits (any more): the action may outlive the job's interest in it."""
    if action_id not in job.waiting_on:
        return job
    left = tuple(other for other in job.waiting_on if other != action_id)
    return job.changed(status=job.status if left else RUNNING, waiting_on=left, updated_at=now)


def _end(job: JobRecord, event: JobEvent, status: JobStatus, now: datetime, **facts: Any) -> JobRecord:
    _demand(job, event, status in LEGAL[job.status])
    return _ended(job, status, now, **facts)


def _ended(job: JobRecord, status: JobStatus, now: datetime, **facts: Any) -> JobRecord:
    return job.changed(status=status, completed_at=now, updated_at=now, waiting_on=(), lease_until=None, **facts)


def _demand(job: JobRecord, event: JobEvent, legal: bool) -> None:
    if not legal:
        what = type(event).__name__
        raise JobStateError(
            f"Job {job.job_id} is {job.status.value}, so {what} is not possible.",
            job_id=job.job_id,
            status=job.status.value,
            event=what,
            owner=job.owner,
        )
