"""The table of jobs, and how a row becomes a record."""

from __future__ import annotations

from typing import Any

from agent_runtime.jobs.records import JobRecord
from agent_runtime.stores import assignments, facts_of, placeholders, to_json, to_seconds
from runtime_core.stores.migrations import Migration
from runtime_core.stores.sql import SqlValue

_FIXED = (
    "scope_id, job_id, principal_id, session_id, run_id, parent_job_id, idempotency_key, request_hash, created_at,"
    " deadline, budgets, policy_ref, versions, metadata, tags"
)
_CHANGING = (
    "status, updated_at, started_at, completed_at, progress, result_ref, error, waiting_on, owner, lease_until,"
    " attempt, version"
)
COLUMNS = _FIXED + ", " + _CHANGING
VALUES = placeholders(COLUMNS)
ASSIGNMENTS = assignments(_CHANGING)

_NAMES = tuple(COLUMNS.split(", "))
_TIMES = frozenset({"created_at", "updated_at", "started_at", "completed_at", "deadline", "lease_until"})
_JSON = frozenset({"budgets", "policy_ref", "versions", "metadata", "tags", "error", "waiting_on"})


def values_of(job: JobRecord) -> tuple[SqlValue, ...]:
    """The values of COLUMNS."""
    return (
        job.scope_id,
        job.job_id,
        job.principal_id,
        job.session_id,
        job.run_id,
        job.parent_job_id,
        job.idempotency_key,
        job.request_hash,
        to_seconds(job.created_at),
        to_seconds(job.deadline),
        to_json(job.budgets and job.budgets.model_dump(mode="json", exclude_none=True)),
        to_json(job.policy_ref and job.policy_ref.model_dump(mode="json", exclude_none=True)),
        to_json(job.versions and job.versions.model_dump(mode="json", exclude_none=True)),
        to_json(job.metadata),
        to_json(job.tags),
        *changing_of(job),
    )


def changing_of(job: JobRecord) -> tuple[SqlValue, ...]:
    """The values of ASSIGNMENTS."""
    return (
        job.status.value,
        to_seconds(job.updated_at),
        to_seconds(job.started_at),
        to_seconds(job.completed_at),
        job.progress,
        job.result_ref,
        to_json(job.error and job.error.model_dump(mode="json")),
        to_json(job.waiting_on),
        job.owner,
        to_seconds(job.lease_until),
        job.attempt,
        job.version,
    )


def job_of(row: tuple[Any, ...]) -> JobRecord:
    """The record of a row of COLUMNS."""
    return JobRecord.model_validate(facts_of(row, _NAMES, times=_TIMES, json_values=_JSON))


MIGRATIONS = (
    Migration(
        version=1,
        statements=(
            "CREATE TABLE runtime_jobs (scope_id {text} NOT NULL, job_id {text} NOT NULL, principal_id {text} NOT NULL,"
            " session_id {text}, run_id {text}, parent_job_id {text}, idempotency_key {text}, request_hash {text},"
            " status {text} NOT NULL, created_at {time} NOT NULL, updated_at {time} NOT NULL, started_at {time},"
            " completed_at {time}, deadline {time}, progress {real} NOT NULL, budgets {json}, policy_ref {json},"
            " versions {json}, metadata {json} NOT NULL, tags {json} NOT NULL, result_ref {text}, error {json},"
            " waiting_on {json} NOT NULL, owner {text}, lease_until {time}, attempt {int} NOT NULL,"
            " version {int} NOT NULL, PRIMARY KEY (scope_id, job_id))",
            "CREATE UNIQUE INDEX runtime_jobs_key ON runtime_jobs (scope_id, idempotency_key)"
            " WHERE idempotency_key IS NOT NULL",
            "CREATE INDEX runtime_jobs_time ON runtime_jobs (scope_id, created_at, job_id)",
            "CREATE INDEX runtime_jobs_parent ON runtime_jobs (scope_id, parent_job_id, created_at)"
            " WHERE parent_job_id IS NOT NULL",
            "CREATE INDEX runtime_jobs_deadline ON runtime_jobs (deadline)"
            " WHERE deadline IS NOT NULL AND completed_at IS NULL",
            "CREATE INDEX runtime_jobs_lease ON runtime_jobs (lease_until) WHERE lease_until IS NOT NULL",
            "CREATE INDEX runtime_jobs_ended ON runtime_jobs (scope_id, completed_at) WHERE completed_at IS NOT NULL",
        ),
    ),
    Migration(version=2, scoped=("runtime_jobs",)),
)
