"""Where jobs are kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from agent_runtime.jobs.machine import JobEvent
from agent_runtime.jobs.records import JobRecord, JobStatus


@dataclass(frozen=True, slots=True)
class JobCursor:
    """Where a page ended; the next one begins after it."""

    created_at: datetime
    job_id: str


@dataclass(frozen=True, slots=True)
class JobPage:
    """Jobs in the order of their creation; `next` is None on the last page."""

    jobs: list[JobRecord]
    next: JobCursor | None


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs; None does not filter."""

    status: JobStatus | None = None
    session_id: str | None = None
    parent_job_id: str | None = None


class JobStore(Protocol):
    """`tests/contract/test_job_store.py` is its contract.

    Every method may be repeated after StoreUnavailableError, also with `outcome_unknown`.
    """

    async def create(self, job: JobRecord) -> JobRecord:
        """Keep the job and return it; or return the one that has its id or its idempotency key already.

        Raises StoreQuotaError where the scope may have no more jobs with a key.
        """
        ...

    async def get(self, scope_id: str, job_id: str) -> JobRecord | None: ...

    async def apply(self, scope_id: str, job_id: str, event: JobEvent, *, now: datetime) -> JobRecord:
        """`machine.transition` of the stored job, as one transaction; the job as it then is.

        Raises JobNotFoundError and JobStateError.
        """
        ...

    async def list(
        self, scope_id: str, which: JobFilter | None = None, *, after: JobCursor | None = None, limit: int = 100
    ) -> JobPage: ...

    async def overdue(self, *, now: datetime, limit: int) -> list[JobRecord]:
        """Open jobs of all scopes whose deadline has passed, the oldest deadline first."""
        ...

    async def lapsed(self, *, now: datetime, limit: int) -> list[JobRecord]:
        """Queued and running jobs of all scopes whose lease has run out, the oldest lease first."""
        ...

    async def forget(self, scope_id: str, *, older_than: datetime, limit: int) -> int:
        """Delete up to `limit` jobs that ended before `older_than`; how many."""
        ...
