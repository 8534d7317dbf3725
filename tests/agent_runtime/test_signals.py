"""Signals: heard by whoever listens, in this process and in others, whatever becomes of Redis meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import redis.asyncio as redis

from agent_runtime.actions.signals import Listener, LocalSignalChannel, SignalChannel
from agent_runtime.redis.signals import RedisSignalChannel
from support import redis as servers
from support.proxy import proxy_to
from support.waiting import until


@asynccontextmanager
async def started(url: str, **options: float) -> AsyncIterator[RedisSignalChannel]:
    """A channel as a process of its own has it."""
    client = await redis.from_url(url)
    try:
        async with RedisSignalChannel(client, **options) as channel:
            yield channel
    finally:
        await client.aclose()


@pytest.fixture(params=["local", "redis"])
async def ends(request: pytest.FixtureRequest) -> AsyncIterator[tuple[SignalChannel, SignalChannel]]:
    """Where it is heard, and where it is sent."""
    if request.param == "local":
        channel = LocalSignalChannel()
        yield channel, channel
        return
    url = request.getfixturevalue("redis_server").url
    async with started(url) as here, started(url) as there:
        yield here, there


async def test_a_waiter_is_woken_by_its_key_alone(ends: tuple[SignalChannel, SignalChannel]) -> None:
    here, there = ends
    async with here.listen("mine") as mine, here.listen("mine") as too, here.listen("other") as other:
        await there.notify("mine")
        assert await mine.wait(timeout_s=5)
        assert await too.wait(timeout_s=5)
        assert not await other.wait(timeout_s=0.01)


async def test_a_signal_between_looking_and_waiting_is_heard(ends: tuple[SignalChannel, SignalChannel]) -> None:
    here, there = ends
    async with here.listen("k") as listener:
        await there.notify("k")
        await there.notify("k")
        await asyncio.sleep(0.05)
        assert await listener.wait(timeout_s=5)
        assert not await listener.wait(timeout_s=0.01), "a signal is heard once"
        asyncio.get_running_loop().call_later(0.01, lambda: asyncio.ensure_future(there.notify("k")))
        assert await listener.wait(timeout_s=None)


async def test_waiting_ends_in_time_and_leaves_nothing(ends: tuple[SignalChannel, SignalChannel]) -> None:
    here, _ = ends
    assert not await here.wait("k", timeout_s=0.01)
    waiting = asyncio.create_task(here.wait("k", timeout_s=None))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    local = here if isinstance(here, LocalSignalChannel) else here._local
    assert local._bells == {}


async def test_a_channel_that_was_not_started_says_so(redis_server: servers.RedisServer) -> None:
    client = await redis.from_url(redis_server.url)
    with pytest.raises(RuntimeError, match="start"):
        await RedisSignalChannel(client).wait("k", timeout_s=1)
    await client.aclose()


async def test_a_hundred_waiters_in_ten_processes_are_all_woken(redis_server: servers.RedisServer) -> None:
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(started(redis_server.url)) for _ in range(10)]
        waits = [asyncio.create_task(channels[n % 10].wait(f"k{n}", timeout_s=10)) for n in range(100)]
        await asyncio.sleep(0)
        await asyncio.gather(*(channels[(n + 1) % 10].notify(f"k{n}") for n in range(100)))
        assert all(await asyncio.gather(*waits))


async def test_start_and_stop_may_be_called_twice_and_leave_no_task(redis_server: servers.RedisServer) -> None:
    before = asyncio.all_tasks()
    async with started(redis_server.url) as channel:
        await channel.start()
        await channel.stop()
        await channel.start()
        assert channel.is_connected
    await channel.stop()
    assert asyncio.all_tasks() == before


async def test_without_redis_signals_are_local_and_cost_no_time_and_it_is_found_when_it_is_back() -> None:
    with servers.redis_server() as server:
        async with (
            started(server.url, timeout_s=0.2) as here,
            started(server.url, timeout_s=0.2) as there,
            here.listen("k") as listener,
        ):
            server.kill()
            await until(lambda: not here.is_connected and not there.is_connected)
            began = time.monotonic()
            for _ in range(100):
                await here.notify("k")
            assert time.monotonic() - began < 1
            assert await listener.wait(timeout_s=1)
            await there.notify("k")
            assert not await listener.wait(timeout_s=0.01)

            server.start()
            assert await listener.wait(timeout_s=5), "what was lost meanwhile is looked for"
            await until(lambda: there.is_connected)
            assert await heard_soon(listener, there)


async def heard_soon(listener: Listener, there: SignalChannel) -> bool:
    """Redis is left alone for a second after trouble."""
    for _ in range(30):
        await there.notify("k")
        if await listener.wait(timeout_s=0.1):
            return True
    return False


async def test_a_start_without_redis_returns_in_time_and_hears_later() -> None:
    with servers.redis_server() as server:
        server.kill()
        began = time.monotonic()
        async with started(server.url, timeout_s=0.2) as channel:
            assert not channel.is_connected
            assert time.monotonic() - began < 2
            server.start()
            await until(lambda: channel.is_connected)


async def test_a_connection_that_went_silent_is_noticed_and_made_anew(redis_server: servers.RedisServer) -> None:
    async with proxy_to(redis_server.socket) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}"
        async with started(url, timeout_s=0.2, silence_s=0.1) as far, started(redis_server.url) as near:
            await asyncio.sleep(0.5)
            assert far.is_connected, "it answers when it is asked"
            proxy.block()
            await until(lambda: not far.is_connected)
            proxy.cut()
            proxy.unblock()
            await until(lambda: far.is_connected)
            async with far.listen("k") as listener:
                await near.notify("k")
                assert await listener.wait(timeout_s=5)
