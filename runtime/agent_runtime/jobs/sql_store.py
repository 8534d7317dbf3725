"""Jobs on any database of runtime_core, and the names under which each backend is known."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from agent_runtime.jobs import ops
from agent_runtime.jobs.machine import JobEvent
from agent_runtime.jobs.recent import RecentJobs
from agent_runtime.jobs.records import JobRecord
from agent_runtime.jobs.schema import MIGRATIONS
from agent_runtime.jobs.store import JobCursor, JobFilter, JobPage
from agent_runtime.stores import SqlStore, on_sqlite
from runtime_core.call_log.keys import MAX_KEYS
from runtime_core.clock import Clock, SystemClock
from runtime_core.ids import check_scope_id
from runtime_core.quota import Quota
from runtime_core.stores.database import Database
from runtime_core.stores.memory import MemoryDatabase
from runtime_core.stores.scope import everywhere, in_scope


class SqlJobStore(SqlStore):
    """A JobStore. The database stays its caller's to close. `max_keys` of a scope's jobs may have idempotency keys."""

    COMPONENT = "runtime_jobs"
    MIGRATIONS = MIGRATIONS

    def __init__(
        self,
        database: Database,
        *,
        owns: bool = False,
        max_keys: int = MAX_KEYS,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(database, owns=owns)
        self._recent = RecentJobs()
        self._quota = Quota(max_keys, monotonic=(clock or SystemClock()).monotonic)

    async def create(self, job: JobRecord) -> JobRecord:
        created = await self._create(job)
        self._recent.keep(created)
        return created

    async def _create(self, job: JobRecord) -> JobRecord:
        if job.idempotency_key is None:
            return await self._run(in_scope(job.scope_id, lambda: ops.create(job)))
        async with self._quota.place(job.scope_id, lambda: self._kept_keys(job.scope_id)) as may_add:
            full_at = None if may_add else self._quota.limit
            return await self._run(in_scope(job.scope_id, lambda: ops.create(job, full_at=full_at)))

    async def get(self, scope_id: str, job_id: str) -> JobRecord | None:
        check_scope_id(scope_id)
        return await self._read(in_scope(scope_id, lambda: ops.find(scope_id, job_id)))

    async def apply(self, scope_id: str, job_id: str, event: JobEvent, *, now: datetime) -> JobRecord:
        check_scope_id(scope_id)
        known = self._recent.get(scope_id, job_id)
        job = await self._run(in_scope(scope_id, lambda: ops.apply(scope_id, job_id, event, now, known)))
        self._recent.keep(job)
        return job

    async def list(
        self, scope_id: str, which: JobFilter | None = None, *, after: JobCursor | None = None, limit: int = 100
    ) -> JobPage:
        check_scope_id(scope_id)
        return await self._read(in_scope(scope_id, lambda: ops.page(scope_id, which or JobFilter(), after, limit)))

    async def overdue(self, *, now: datetime, limit: int) -> list[JobRecord]:
        return await self._read(everywhere(lambda: ops.overdue(now, limit)))

    async def lapsed(self, *, now: datetime, limit: int) -> list[JobRecord]:
        return await self._read(everywhere(lambda: ops.lapsed(now, limit)))

    async def forget(self, scope_id: str, *, older_than: datetime, limit: int = 1000) -> int:
        check_scope_id(scope_id)
        return await self._run(in_scope(scope_id, lambda: ops.forget(scope_id, older_than, limit)))

    async def _kept_keys(self, scope_id: str) -> int:
        return await self._read(in_scope(scope_id, lambda: ops.count_keys(scope_id, self._quota.limit)))


class InMemoryJobStore(SqlJobStore):
    """For one process and for tests: the jobs end with it."""

    def __init__(self, *, max_keys: int = MAX_KEYS) -> None:
        super().__init__(MemoryDatabase(), owns=True, max_keys=max_keys)


class SqliteJobStore(SqlJobStore):
    """In a file, for all processes of one machine; or on a database that is open already."""

    def __init__(
        self, database: Database | Path | str, *, node_id: str | None = None, max_keys: int = MAX_KEYS
    ) -> None:
        opened, owns = on_sqlite(database, node_id)
        super().__init__(opened, owns=owns, max_keys=max_keys)
