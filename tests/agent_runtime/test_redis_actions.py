"""Actions in Redis: what a lost connection leaves behind, and what a forgotten action does not."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
import redis.asyncio as redis

from agent_runtime.actions.machine import JobTold, Resolve, Withdraw
from agent_runtime.redis.actions import RedisActionStore
from agent_runtime.scopes import place, scope_of
from agent_runtime.testing.records import NOW, action_of, later
from runtime_core.errors import StoreFullError, StoreUnavailableError
from support import redis as servers
from support.proxy import proxy_to


@pytest.fixture
async def client(redis_server: servers.RedisServer) -> AsyncIterator[redis.Redis]:
    client = await redis.from_url(redis_server.url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.mark.parametrize("gone", [False, True], ids=["cut once", "cut and then silent"])
async def test_a_change_whose_answer_is_lost_counts_once(
    redis_server: servers.RedisServer, client: redis.Redis, gone: bool
) -> None:
    near = RedisActionStore(client)
    await near.create(action_of(), token_hash="h")
    answer = Resolve({"approved": True}, answer_id="r1")
    async with proxy_to(redis_server.socket) as proxy:
        through = redis.Redis(port=proxy.port)
        far = RedisActionStore(through, timeout_s=1 if gone else 30)
        proxy.cut_after(b"EVAL", then_block=gone)
        if gone:
            with pytest.raises(StoreUnavailableError) as caught:
                await far.apply("tenant-1", "action-1", answer, now=NOW)
            assert caught.value.outcome_unknown
            proxy.unblock()
        given = await RedisActionStore(through, timeout_s=30).apply("tenant-1", "action-1", answer, now=NOW)
        assert given == await near.get("tenant-1", "action-1")
        assert (given.is_granted, given.version) == (True, 2)
        await through.aclose()


async def test_without_redis_a_call_ends_in_time_and_the_next_one_finds_it_back() -> None:
    with servers.redis_server() as server:
        client = await redis.from_url(server.url)
        store = RedisActionStore(client, timeout_s=0.3)
        await store.create(action_of(), token_hash="h")
        server.kill()
        began = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="see whether it runs") as caught:
            await store.apply("tenant-1", "action-1", Withdraw(), now=NOW)
        assert time.monotonic() - began < 2
        assert not caught.value.outcome_unknown
        server.start()
        assert await store.get("tenant-1", "action-1") is None, "it kept nothing"
        assert await store.create(action_of(), token_hash="h") == action_of()
        await client.aclose()


async def test_forgotten_actions_leave_nothing_behind(client: redis.Redis) -> None:
    store = RedisActionStore(client)
    for number in range(10):
        action_id = f"action-{number}"
        await store.create(action_of(action_id, job_id="j", expires_at=later(9)), token_hash=f"old {number}")
        await store.create(action_of(action_id, job_id="j", expires_at=later(9)), token_hash=f"new {number}")
        await store.apply("tenant-1", action_id, Withdraw(), now=later(1))
        await store.apply("tenant-1", action_id, JobTold(), now=later(1))
    assert await store.forget("tenant-1", older_than=later(2)) == 10
    assert await client.keys("*") == []


async def test_redis_without_memory_is_a_full_store() -> None:
    with servers.redis_server() as server:
        client = await redis.from_url(server.url)
        await client.config_set("maxmemory", "1mb")
        with pytest.raises(StoreFullError, match="memory"):
            for number in range(100):
                await RedisActionStore(client).create(
                    action_of(f"action-{number}", payload={"text": "x" * 100_000}), token_hash=f"{number}"
                )
        await client.aclose()


@pytest.mark.parametrize(("scope_id", "name"), [("a", "b"), ("a:1", "b"), ("1:a", ":b:"), ("ü", ""), ("2:x:y", "z")])
def test_a_place_is_told_apart_from_every_other(scope_id: str, name: str) -> None:
    assert scope_of(place(scope_id, name)) == (scope_id, name)
