"""The event bus: who hears what, and that nobody suffers from anybody else."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from agent_runtime import InMemoryEventBus, RuntimeEvent, RuntimeEventType
from support.stores import until

STARTED, COMPLETED = RuntimeEventType.JOB_STARTED, RuntimeEventType.JOB_COMPLETED


def event(number: int = 0, **facts: object) -> RuntimeEvent:
    return RuntimeEvent.model_validate({"type": STARTED, "data": {"n": number}, **facts})


def numbers(events: list[RuntimeEvent]) -> list[object]:
    return [each.data["n"] for each in events]


async def test_a_subscriber_hears_what_it_asked_for() -> None:
    bus = InMemoryEventBus()
    heard: dict[str, list[RuntimeEvent]] = {}
    for name, wish in {
        "all": {"scope_id": None},
        "default": {},
        "tenant": {"scope_id": "tenant-1"},
        "job": {"job_id": "job-1", "scope_id": "tenant-1"},
        "completed": {"event_types": {COMPLETED}, "scope_id": None},
        "job anywhere": {"job_id": "job-1", "scope_id": None},
    }.items():
        await bus.subscribe(heard.setdefault(name, []).append, **wish)  # type: ignore[arg-type]
    await bus.publish(event(1))
    await bus.publish(event(2, scope_id="tenant-1", job_id="job-1"))
    await bus.publish(event(3, scope_id="tenant-1", type=COMPLETED))
    await bus.publish(event(4, scope_id="tenant-2", job_id="job-1"))
    await bus.flush()
    assert {name: numbers(events) for name, events in heard.items()} == {
        "all": [1, 2, 3, 4],
        "default": [1],
        "tenant": [2, 3],
        "job": [2],
        "completed": [3],
        "job anywhere": [2, 4],
    }


async def test_a_slow_subscriber_loses_its_oldest_events_and_delays_nobody() -> None:
    bus = InMemoryEventBus(max_queued=64)
    quick: list[RuntimeEvent] = []
    slow: list[RuntimeEvent] = []
    gate = asyncio.Event()

    async def stuck(each: RuntimeEvent) -> None:
        slow.append(each)
        await gate.wait()

    await bus.subscribe(quick.append)
    slowly = await bus.subscribe(stuck)
    for number in range(1000):
        await bus.publish(event(number))
    await until(lambda: len(quick) == 1000)
    assert numbers(quick) == list(range(1000))
    assert len(slow) == 1
    gate.set()
    await bus.flush()
    assert numbers(slow)[1:] == list(range(1000 - 64, 1000))
    assert slowly.dropped == bus.dropped == 1000 - len(slow)


async def test_a_subscriber_that_raises_is_called_again_and_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    bus = InMemoryEventBus()
    heard: list[RuntimeEvent] = []

    async def broken(each: RuntimeEvent) -> None:
        heard.append(each)
        raise RuntimeError("not my day")

    subscription = await bus.subscribe(broken)
    await bus.subscribe(heard.append)
    with caplog.at_level(logging.ERROR):
        for number in range(100):
            await bus.publish(event(number))
        await bus.flush()
    assert len(heard) == 200
    assert subscription.errors == 100
    assert len(caplog.records) < 10, "a handler that always fails must not flood the log"


async def test_after_unsubscribing_nothing_comes_any_more() -> None:
    bus = InMemoryEventBus()
    heard: list[RuntimeEvent] = []
    entered, left = asyncio.Event(), asyncio.Event()

    async def handler(each: RuntimeEvent) -> None:
        heard.append(each)
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    subscription = await bus.subscribe(handler)
    for number in range(3):
        await bus.publish(event(number))
    await entered.wait()
    await subscription.unsubscribe()
    assert left.is_set(), "the handler is not running any more"
    await bus.publish(event(9))
    await bus.flush()
    assert numbers(heard) == [0]
    assert bus.subscribers == 0


async def test_a_handler_may_unsubscribe_itself() -> None:
    bus = InMemoryEventBus()
    heard: list[RuntimeEvent] = []

    async def once(each: RuntimeEvent) -> None:
        heard.append(each)
        await subscription.unsubscribe()

    subscription = await bus.subscribe(once)
    for number in range(3):
        await bus.publish(event(number))
    await bus.flush()
    assert numbers(heard) == [0]


async def test_a_stream_hears_from_the_moment_that_it_is_made_and_gives_the_rest_when_closed() -> None:
    bus = InMemoryEventBus()
    await bus.publish(event(0))
    async with bus.events() as stream:
        await bus.publish(event(1))
        assert (await anext(stream)).data == {"n": 1}
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        await bus.publish(event(2))
        assert (await waiting).data == {"n": 2}
        await bus.publish(event(3))
    await bus.publish(event(4))
    assert numbers([each async for each in stream]) == [3]


async def test_a_closed_stream_wakes_its_reader() -> None:
    stream = InMemoryEventBus().events()
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    await stream.close()
    with pytest.raises(StopAsyncIteration):
        await waiting


async def test_a_stream_that_is_forgotten_is_not_filled_for_ever() -> None:
    bus = InMemoryEventBus()
    stream = bus.events()
    assert bus.subscribers == 1
    del stream
    gc.collect()
    assert bus.subscribers == 0


async def test_a_full_stream_counts_what_it_lost() -> None:
    bus = InMemoryEventBus(max_queued=3)
    stream = bus.events()
    for number in range(5):
        await bus.publish(event(number))
    await stream.close()
    assert (stream.dropped, numbers([each async for each in stream])) == (2, [2, 3, 4])


async def test_a_quiet_bus_has_no_tasks() -> None:
    bus = InMemoryEventBus()
    before = asyncio.all_tasks()
    for _ in range(10):
        await bus.subscribe(lambda each: None)
    await bus.publish(event())
    await bus.flush()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


def test_an_event_is_json_and_comes_back() -> None:
    original = event(1, job_id="job-1", trace_id="0" * 32)
    assert RuntimeEvent.model_validate_json(original.model_dump_json()) == original
