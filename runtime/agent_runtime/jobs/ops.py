"""What is done to jobs, as operations; `sql_store` runs them on a database."""

from __future__ import annotations

from datetime import datetime

from agent_runtime.errors import JobConflictError, JobNotFoundError, JobStateError
from agent_runtime.jobs.machine import JobEvent, transition
from agent_runtime.jobs.records import JobRecord
from agent_runtime.jobs.schema import ASSIGNMENTS, COLUMNS, VALUES, changing_of, job_of, values_of
from agent_runtime.jobs.store import JobCursor, JobFilter, JobPage
from runtime_core.errors import StoreQuotaError
from runtime_core.stores.sql import Op, Sql, where

_SELECT = "SELECT " + COLUMNS + " FROM runtime_jobs"
_FIND = _SELECT + " WHERE scope_id = ? AND job_id = ?"
_FIND_BY_KEY = _SELECT + " WHERE scope_id = ? AND idempotency_key = ?"
_INSERT = "INSERT INTO runtime_jobs (" + COLUMNS + ") VALUES (" + VALUES + ") ON CONFLICT DO NOTHING"
_UPDATE = "UPDATE runtime_jobs SET " + ASSIGNMENTS + " WHERE scope_id = ? AND job_id = ?"
_UPDATE_IF_SAME = _UPDATE + " AND version = ?"
_OVERDUE = _SELECT + " WHERE completed_at IS NULL AND deadline <= ? ORDER BY deadline LIMIT ?"
_LAPSED = _SELECT + " WHERE lease_until <= ? AND status IN ('queued', 'running') ORDER BY lease_until LIMIT ?"
_FORGET = (
    "DELETE FROM runtime_jobs WHERE scope_id = ? AND job_id IN (SELECT job_id FROM runtime_jobs"
    " WHERE scope_id = ? AND completed_at < ? ORDER BY completed_at LIMIT ?) RETURNING version"
)
_COUNT_KEYS = (
    "SELECT COUNT(*) FROM (SELECT idempotency_key FROM runtime_jobs"
    " WHERE scope_id = ? AND idempotency_key IS NOT NULL LIMIT ?) AS kept"
)


def create(job: JobRecord, *, full_at: int | None = None) -> Op[JobRecord]:
    """Insert the job, or find the one that has its id or its key already.

    Raises JobConflictError if that one is another request's, JobNotFoundError or JobStateError for a parent that is
    not there or has ended, and StoreQuotaError for a new one in a scope that is `full_at` so many jobs with a key.
    """
    if (job.parent_job_id is not None or full_at is not None) and (there := (yield from _same(job))) is not None:
        return there
    if full_at is not None:
        raise StoreQuotaError(
            f"This scope has {full_at} jobs with an idempotency key, and may have no more; forget some that ended.",
            limit=full_at,
        )
    if job.parent_job_id is not None:
        job = _under(job, (yield from find(job.scope_id, job.parent_job_id)))
    [(written,)] = yield Sql(_INSERT, values_of(job), counts=True)
    if written:
        return job
    there = yield from _same(job)
    if there is None:  # a serializable transaction cannot see this; a weaker one asks its caller to repeat
        raise JobStateError(f"Job {job.job_id} was being created by somebody else; try again.", job_id=job.job_id)
    return there


def count_keys(scope_id: str, limit: int) -> Op[int]:
    """How many jobs of a scope have an idempotency key, as far as `limit`."""
    [(kept,)] = yield Sql(_COUNT_KEYS, (scope_id, limit))
    return kept


def find(scope_id: str, job_id: str) -> Op[JobRecord | None]:
    rows = yield Sql(_FIND, (scope_id, job_id))
    return job_of(rows[0]) if rows else None


def apply(scope_id: str, job_id: str, event: JobEvent, now: datetime, known: JobRecord | None = None) -> Op[JobRecord]:
    """`transition` of the stored job. Raises JobNotFoundError and JobStateError.

    It is read first, unless it still is as it was `known` to be, and changes.
    """
    if known is not None and (after := _foreseen(known, event, now)) is not None:
        values = (*changing_of(after), scope_id, job_id, known.version)
        [(written,)] = yield Sql(_UPDATE_IF_SAME, values, counts=True)
        if written:
            return after
    job = yield from find(scope_id, job_id)
    if job is None:
        raise JobNotFoundError(f"There is no job {job_id!a} in this scope.", job_id=job_id)
    after = transition(job, event, now)
    if after is not job:
        yield Sql(_UPDATE, (*changing_of(after), scope_id, job_id))
    return after


def page(scope_id: str, which: JobFilter, after: JobCursor | None, limit: int) -> Op[JobPage]:
    """At most `limit` jobs, the oldest first."""
    asked, params = where(
        ("status = ?", which.status and which.status.value),
        ("session_id = ?", which.session_id),
        ("parent_job_id = ?", which.parent_job_id),
    )
    text = _SELECT + " WHERE scope_id = ?" + asked
    if after is not None:
        text += " AND (created_at, job_id) > (?, ?)"
        params += [after.created_at.timestamp(), after.job_id]
    rows = yield Sql(text + " ORDER BY created_at, job_id LIMIT ?", (scope_id, *params, limit + 1))
    jobs = [job_of(row) for row in rows[:limit]]
    more = len(rows) > limit
    return JobPage(jobs, JobCursor(jobs[-1].created_at, jobs[-1].job_id) if more else None)


def overdue(now: datetime, limit: int) -> Op[list[JobRecord]]:
    rows = yield Sql(_OVERDUE, (now.timestamp(), limit))
    return [job_of(row) for row in rows]


def lapsed(now: datetime, limit: int) -> Op[list[JobRecord]]:
    rows = yield Sql(_LAPSED, (now.timestamp(), limit))
    return [job_of(row) for row in rows]


def forget(scope_id: str, older_than: datetime, limit: int) -> Op[int]:
    return len((yield Sql(_FORGET, (scope_id, scope_id, older_than.timestamp(), limit))))


def _foreseen(known: JobRecord, event: JobEvent, now: datetime) -> JobRecord | None:
    """The job after the event; None if nothing would be changed, which only the stored job can tell."""
    try:
        after = transition(known, event, now)
    except JobStateError:
        return None
    return None if after is known else after


def _same(job: JobRecord) -> Op[JobRecord | None]:
    there = yield from find(job.scope_id, job.job_id)
    if there is None and job.idempotency_key is not None:
        rows = yield Sql(_FIND_BY_KEY, (job.scope_id, job.idempotency_key))
        there = job_of(rows[0]) if rows else None
    if there is None or None in (there.request_hash, job.request_hash) or there.request_hash == job.request_hash:
        return there
    raise JobConflictError(
        "The idempotency key was used for another request; use a new key for a new request.", job_id=there.job_id
    )


def _under(job: JobRecord, parent: JobRecord | None) -> JobRecord:
    """The job as a child: it never outlives its parent's deadline."""
    if parent is None:
        raise JobNotFoundError(
            f"There is no job {job.parent_job_id!a} in this scope to be the parent.", job_id=job.parent_job_id
        )
    if parent.is_terminal:
        raise JobStateError(
            f"Job {parent.job_id} is {parent.status.value}, so it gets no more children.",
            job_id=parent.job_id,
            status=parent.status.value,
        )
    if parent.deadline is None or (job.deadline is not None and job.deadline <= parent.deadline):
        return job
    return job.model_copy(update={"deadline": parent.deadline})
