"""The two clocks: one that follows the machine, one that follows the test."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import pytest

from runtime_core.clock import Clock, ManualClock, SystemClock
from support.stores import until


def clocks() -> list[Clock]:
    return [SystemClock(), ManualClock(datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))))]


@pytest.mark.parametrize("clock", clocks(), ids=["system", "manual"])
def test_now_is_aware_and_in_utc(clock: Clock) -> None:
    assert clock.now().tzinfo is UTC


def test_the_system_clock_is_the_machines() -> None:
    clock = SystemClock()
    before = datetime.now(UTC)
    first, second = clock.monotonic(), clock.monotonic()
    assert before <= clock.now() <= datetime.now(UTC)
    assert first <= second


async def test_the_system_clock_sleeps_for_that_long() -> None:
    clock = SystemClock()
    before = clock.monotonic()
    await clock.sleep(0.02)
    assert clock.monotonic() - before >= 0.019


async def test_a_manual_clock_wakes_sleepers_in_the_order_of_their_time() -> None:
    clock = ManualClock()
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.monotonic()))

    async with asyncio.TaskGroup() as group:
        for name, seconds in (("late", 9), ("first", 1), ("second", 2), ("also second", 2)):
            group.create_task(sleeper(name, seconds))
        await until(lambda: clock.sleepers == 4)
        clock.advance(1.5)
        await until(lambda: len(woken) == 1)
        clock.advance(0.5)
        await until(lambda: len(woken) == 3)
        assert clock.sleepers == 1
        clock.advance(100)

    assert woken == [("first", 1.5), ("second", 2), ("also second", 2), ("late", 102)]


async def test_a_cancelled_sleeper_is_forgotten() -> None:
    clock = ManualClock()
    task = asyncio.create_task(clock.sleep(1))
    await until(lambda: clock.sleepers == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.sleepers == 0
    clock.advance(2)


@pytest.mark.parametrize("seconds", [0, -1])
async def test_sleeping_for_nothing_still_lets_others_run(seconds: float) -> None:
    ran: list[bool] = []
    asyncio.get_running_loop().call_soon(ran.append, True)
    await ManualClock().sleep(seconds)
    assert ran


def test_a_step_moves_the_wall_clock_only() -> None:
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    clock.advance(10)
    clock.step(-3600)
    assert clock.now() == datetime(2025, 12, 31, 23, 0, 10, tzinfo=UTC)
    assert clock.monotonic() == 10


def test_time_cannot_be_advanced_backwards() -> None:
    with pytest.raises(ValueError, match="step"):
        ManualClock().advance(-1)
