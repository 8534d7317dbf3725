"""Time as an argument: the wall clock for stamps and deadlines, the monotonic clock for durations."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """What a component may know about time."""

    def now(self) -> datetime:
        """The wall clock, aware, in UTC. It may jump; never subtract two of these to measure."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start that never go back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of monotonic time; let others run even when that is zero or less."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SteadyTime:
    """Seconds since the epoch that never jump: the wall clock as it was when this was made, carried on by the
    monotonic one. A wall clock that is set, forward or back, neither ends a lease early nor keeps one alive."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started_at = clock.now().timestamp() - clock.monotonic()

    def now(self) -> float:
        return self._started_at + self._clock.monotonic()


class ManualClock:
    """A clock that moves only when told to, for tests. It belongs to one event loop."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._wall_start = start.astimezone(UTC)
        self._elapsed = 0.0
        self._stepped = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        return self._wall_start + timedelta(seconds=self._elapsed + self._stepped)

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._order), woken))
        await woken

    @property
    def sleepers(self) -> int:
        """How many tasks are asleep; a test waits for this before it advances."""
        return sum(not woken.done() for _, _, woken in self._sleepers)

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass on both clocks and wake, in order, everyone whose time has come."""
        if seconds < 0:
            raise ValueError("monotonic time cannot go back; use step() to move the wall clock")
        self._elapsed += seconds
        while self._sleepers and self._sleepers[0][0] <= self._elapsed:
            _, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)

    def step(self, seconds: float) -> None:
        """Make the wall clock jump, as an operator or NTP does, while no time passes."""
        self._stepped += seconds
