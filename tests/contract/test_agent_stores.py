"""What every store of jobs and actions promises, on each of ours; the promises are shipped as agent_runtime.testing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio as redis

from agent_runtime.actions.sql_store import SqlActionStore
from agent_runtime.actions.store import ActionStore
from agent_runtime.jobs.sql_store import SqlJobStore
from agent_runtime.jobs.store import JobStore
from agent_runtime.redis.actions import RedisActionStore
from agent_runtime.redis.jobs import RedisJobCache
from agent_runtime.testing import ActionStoreContract, JobStoreContract
from runtime_core.stores import Database, open_database
from support.redis import RedisServer
from support.stores import fresh_store_url


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[redis.Redis]:
    client = await redis.from_url(redis_server.url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(await fresh_store_url(request.param, request, tmp_path)) as opened:
        yield opened


class TestJobStores(JobStoreContract):
    @pytest.fixture
    def empty_store(self, database: Database) -> JobStore:
        return SqlJobStore(database)


class TestJobCache(JobStoreContract):
    @pytest.fixture
    async def empty_store(self, client: redis.Redis) -> AsyncIterator[JobStore]:
        async with open_database("memory:") as database:
            yield RedisJobCache(client, SqlJobStore(database))


class TestActionStores(ActionStoreContract):
    @pytest.fixture
    def empty_store(self, database: Database) -> ActionStore:
        return SqlActionStore(database)


class TestActionsInRedis(ActionStoreContract):
    @pytest.fixture
    def empty_store(self, client: redis.Redis) -> ActionStore:
        return RedisActionStore(client)
