"""The cache of jobs: quick, never the authority, and no trouble when its Redis is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import redis.asyncio as redis

from agent_runtime.errors import JobStateError
from agent_runtime.jobs.machine import Cancel, Progress, Start, Succeed
from agent_runtime.jobs.records import JobRecord
from agent_runtime.jobs.sql_store import InMemoryJobStore
from agent_runtime.redis.jobs import RedisJobCache
from runtime_core.errors import IdentityError, StoreUnavailableError
from support.redis import RedisServer, redis_server

NOW = datetime.fromisoformat("2026-03-01T12:00:00.123456+00:00")
START = Start(owner="w", lease_until=NOW + timedelta(seconds=60))


def job_of(job_id: str = "job-1", **facts: Any) -> JobRecord:
    return JobRecord(**{"scope_id": "tenant-1", "job_id": job_id, "created_at": NOW, "updated_at": NOW, **facts})


class Counted(InMemoryJobStore):
    """Counts its reads; `broken`: the answers of its writes are lost."""

    reads = 0
    broken = False

    async def get(self, scope_id: str, job_id: str) -> JobRecord | None:
        self.reads += 1
        return await super().get(scope_id, job_id)

    async def apply(self, scope_id: str, job_id: str, event: Any, *, now: datetime) -> JobRecord:
        job = await super().apply(scope_id, job_id, event, now=now)
        if self.broken:
            raise StoreUnavailableError("lost", outcome_unknown=True)
        return job


@pytest.fixture
async def store() -> AsyncIterator[Counted]:
    async with Counted() as opened:
        yield opened


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[redis.Redis]:
    client = await redis.from_url(redis_server.url)
    await client.flushall()
    yield client
    await client.aclose()


async def test_a_job_is_read_from_the_store_once_and_then_from_the_cache(client: redis.Redis, store: Counted) -> None:
    await store.create(job_of(metadata={"deep": [{"ü": 1.5}]}, tags=("a",)))
    here, there = RedisJobCache(client, store), RedisJobCache(client, store)
    found = [await cache.get("tenant-1", "job-1") for cache in (here, there, here)]
    assert found == [await store.get("tenant-1", "job-1")] * 3
    assert store.reads == 2
    assert await here.get("tenant-1", "nobody's") is None
    assert await here.get("tenant-2", "job-1") is None
    with pytest.raises(IdentityError):
        await here.get("", "job-1")


async def test_a_change_is_decided_by_the_store_and_seen_by_everybody(client: redis.Redis, store: Counted) -> None:
    here, there = RedisJobCache(client, store), RedisJobCache(client, store)
    await here.create(job_of())
    assert await there.get("tenant-1", "job-1") == job_of()
    started = await there.apply("tenant-1", "job-1", START, now=NOW)
    assert await here.get("tenant-1", "job-1") == started
    assert store.reads == 0
    await store.apply("tenant-1", "job-1", Cancel(), now=NOW)
    with pytest.raises(JobStateError):
        await here.apply("tenant-1", "job-1", Succeed(), now=NOW)


async def test_a_slow_reader_puts_no_old_job_over_a_newer_one(client: redis.Redis, store: Counted) -> None:
    cache = RedisJobCache(client, store)
    old = await cache.create(job_of())
    started = await cache.apply("tenant-1", "job-1", START, now=NOW)
    await cache._keep(old)
    assert await cache.get("tenant-1", "job-1") == started


async def test_what_was_changed_past_the_cache_is_seen_when_its_time_is_up(client: redis.Redis, store: Counted) -> None:
    cache = RedisJobCache(client, store, ttl_s=0.05)
    await cache.create(job_of())
    await store.apply("tenant-1", "job-1", START, now=NOW)
    async with asyncio.timeout(20):
        while (await cache.get("tenant-1", "job-1")).version == 1:
            await asyncio.sleep(0.01)


async def test_a_change_whose_answer_was_lost_is_not_hidden_by_the_cache(client: redis.Redis, store: Counted) -> None:
    cache = RedisJobCache(client, store)
    await cache.create(job_of())
    store.broken = True
    with pytest.raises(StoreUnavailableError):
        await cache.apply("tenant-1", "job-1", START, now=NOW)
    assert (await cache.get("tenant-1", "job-1")).status == "running"


async def test_what_another_version_wrote_is_not_believed(client: redis.Redis, store: Counted) -> None:
    cache = RedisJobCache(client, store)
    await store.create(job_of())
    await client.set(cache._key("tenant-1", "job-1"), '7:{"kind": "from the future"}')
    assert await cache.get("tenant-1", "job-1") == job_of()


async def test_without_redis_jobs_come_from_the_store_and_take_no_time(store: Counted) -> None:
    with redis_server() as server:
        client = await redis.from_url(server.url)
        cache = RedisJobCache(client, store)
        await cache.create(job_of())
        server.kill()
        began = time.monotonic()
        for step in range(100):
            await cache.apply("tenant-1", "job-1", Progress(step / 100) if step else START, now=NOW)
            assert (await cache.get("tenant-1", "job-1")).version == step + 2
        assert time.monotonic() - began < 2
        await client.aclose()
