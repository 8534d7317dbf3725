"""Jobs read from Redis where it has them, so that whoever asks how a job is doing does not ask the store."""

from __future__ import annotations

from datetime import datetime

from pydantic import ValidationError
from redis.asyncio import Redis

from agent_runtime.jobs.machine import JobEvent
from agent_runtime.jobs.records import JobRecord
from agent_runtime.jobs.store import JobCursor, JobFilter, JobPage, JobStore
from agent_runtime.redis.lossy import Lossy
from agent_runtime.redis.scripts import Script
from agent_runtime.scopes import place
from runtime_core.clock import Clock, SystemClock
from runtime_core.errors import StoreError
from runtime_core.ids import check_scope_id

DEFAULT_PREFIX = "agentflow:job"


class RedisJobCache:
    """A JobStore in front of another, which stays the authority: every change is decided and stored there.

    `get` may be `ttl_s` behind a process that changes jobs without this cache, or that lost its Redis at that
    moment. Without Redis every call goes to the store.
    """

    def __init__(
        self,
        client: Redis,
        store: JobStore,
        *,
        ttl_s: float = 10.0,
        prefix: str = DEFAULT_PREFIX,
        timeout_s: float = 0.25,
        clock: Clock | None = None,
    ) -> None:
        self._client = client
        self._store = store
        self._ttl_ms = max(1, int(ttl_s * 1000))
        self._prefix = prefix
        self._redis = Lossy("job cache", clock=clock or SystemClock(), timeout_s=timeout_s)
        self._set = Script("set_if_newer")

    async def create(self, job: JobRecord) -> JobRecord:
        created = await self._store.create(job)
        await self._keep(created)
        return created

    async def get(self, scope_id: str, job_id: str) -> JobRecord | None:
        key = self._key(scope_id, job_id)
        kept = await self._redis.call(lambda: self._client.get(key))
        job = None if kept is None else _job(kept)
        if job is None:
            job = await self._store.get(scope_id, job_id)
            if job is not None:
                await self._keep(job)
        return job

    async def apply(self, scope_id: str, job_id: str, event: JobEvent, *, now: datetime) -> JobRecord:
        try:
            job = await self._store.apply(scope_id, job_id, event, now=now)
        except StoreError:  # it may be stored
            await self._redis.call(lambda: self._client.delete(self._key(scope_id, job_id)))
            raise
        await self._keep(job)
        return job

    async def list(
        self, scope_id: str, which: JobFilter | None = None, *, after: JobCursor | None = None, limit: int = 100
    ) -> JobPage:
        return await self._store.list(scope_id, which, after=after, limit=limit)

    async def overdue(self, *, now: datetime, limit: int) -> list[JobRecord]:
        return await self._store.overdue(now=now, limit=limit)

    async def lapsed(self, *, now: datetime, limit: int) -> list[JobRecord]:
        return await self._store.lapsed(now=now, limit=limit)

    async def forget(self, scope_id: str, *, older_than: datetime, limit: int = 1000) -> int:
        return await self._store.forget(scope_id, older_than=older_than, limit=limit)

    async def _keep(self, job: JobRecord) -> None:
        key, text = self._key(job.scope_id, job.job_id), job.model_dump_json()
        await self._redis.call(lambda: self._set.run(self._client, key, job.version, text, self._ttl_ms))

    def _key(self, scope_id: str, job_id: str) -> str:
        return f"{self._prefix}:{place(check_scope_id(scope_id), job_id)}"


def _job(kept: bytes | str) -> JobRecord | None:
    """None for what another version of this program wrote."""
    text = kept if isinstance(kept, str) else kept.decode(errors="replace")
    try:
        return JobRecord.model_validate_json(text.partition(":")[2])
    except ValidationError:
        return None
