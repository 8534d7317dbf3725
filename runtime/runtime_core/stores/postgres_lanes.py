"""Operations wait here for a connection, and then go together; nobody waits longer than was promised.

Lanes are tasks in an empty context, and a cancelled caller leaves its operation in the queue: a client that
disconnects under Ray Serve cancels everything it can reach, and a commit must not be among that.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from runtime_core.errors import StoreError, StoreUnavailableError
from runtime_core.stores.outcome import Failed
from runtime_core.stores.postgres_driver import DriverConnection, DriverPool
from runtime_core.stores.postgres_errors import DRIVER_ERRORS, Trouble, translate, trouble_of
from runtime_core.stores.postgres_group import Engine, copies
from runtime_core.stores.postgres_session import Session
from runtime_core.stores.scope import scope_ids_of
from runtime_core.stores.settle import settle
from runtime_core.stores.sql import OpFactory

T = TypeVar("T")

# Between two tries to connect: short, because a restarted server should find its users back within a second.
_RETRY_S = 0.1

# Lanes that are won back with each group that did not collide.
_MORE = 0.05

# The round trip to the server from which on another lane pays. On the same machine, where it takes 0.1 ms, one
# lane with large groups did 1.5 times the writes of four with small ones; 1 ms away they only wait.
_WORTH_S = 0.0003

# An operation that has waited so long gets a lane of its own: the others are slow, or stuck. The second one is for
# lanes that have been colliding.
_HURRY_S = 0.02
_HURRY_COLLIDING_S = 0.5


@dataclass(frozen=True, slots=True)
class LaneOptions:
    lanes: int
    max_batch: int
    patience_s: float
    connect_timeout_s: float
    command_timeout_s: float


@dataclass(slots=True, eq=False)
class _Job:
    op_factory: OpFactory[Any]
    answer: asyncio.Future[Any]
    deadline: float


class Lanes:
    """Up to `lanes` connections of the pool at a time, each with a batch. Use it on one event loop.

    How many depends on how far the server is, on whether lanes collide, and on how long operations wait.
    """

    def __init__(
        self,
        pool: DriverPool,
        engine: Engine,
        *,
        options: LaneOptions,
        session_of: Callable[[DriverConnection], Session],
        location: str,
    ) -> None:
        self._pool = pool
        self._engine = engine
        self._options = options
        self._session_of = session_of
        self._location = location
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Job] = deque()
        self._lanes: set[asyncio.Task[None]] = set()
        self._running = 0
        self._busy = 0
        self._width = float(options.lanes)
        self._round_trip_s = 0.0
        self._hurry: asyncio.TimerHandle | None = None
        self._next_deadline: asyncio.TimerHandle | None = None
        self._trouble: StoreError | None = None

    async def submit(self, op_factory: OpFactory[T]) -> T:
        """The operation's result. Cancelling abandons only the answer."""
        answer: asyncio.Future[T] = self._loop.create_future()
        job = _Job(op_factory, answer, deadline=self._loop.time() + self._options.patience_s)
        self._waiting.append(job)
        self._watch()
        if self._running < self._wanted():
            self._start_lane()
        else:
            self._plan_another()
        return await answer

    async def stop(self) -> None:
        """Return when what was submitted has its answer."""
        while self._lanes:
            await asyncio.wait(self._lanes)
        for timer in filter(None, (self._hurry, self._next_deadline)):
            timer.cancel()

    def _wanted(self) -> int:
        return max(1, min(int(self._width), int(self._round_trip_s / _WORTH_S)))

    def _start_lane(self) -> None:
        self._running += 1
        lane = self._loop.create_task(self._work(), context=contextvars.Context())
        self._lanes.add(lane)
        lane.add_done_callback(self._lanes.discard)

    def _plan_another(self) -> None:
        if self._hurry is None and self._running < self._options.lanes:
            delay_s = _HURRY_S if self._running < int(self._width) else _HURRY_COLLIDING_S
            self._hurry = self._loop.call_later(delay_s, self._hurry_up, self._waiting[0])

    def _hurry_up(self, oldest: _Job) -> None:
        self._hurry = None
        if self._waiting:
            if self._waiting[0] is oldest and self._running < self._options.lanes:
                self._start_lane()
            self._plan_another()

    async def _work(self) -> None:
        try:
            while self._waiting:
                connection = await self._acquire()
                if connection is not None:
                    await self._use(connection)
        finally:
            self._running -= 1

    async def _use(self, connection: DriverConnection) -> None:
        session = self._session_of(connection)
        try:
            while self._waiting and session.broken is None:
                await self._handle(session, self._next_batch())
        finally:
            await self._give_back(connection, session)
        if session.broken is not None:
            await asyncio.sleep(_RETRY_S)

    async def _acquire(self) -> DriverConnection | None:
        """A connection, or None after trouble; whoever has waited long enough, or would in vain, is told."""
        try:
            connection = await self._pool.acquire(timeout=self._options.connect_timeout_s)
        except DRIVER_ERRORS as error:
            self._trouble = translate(error, location=self._location)
            self._trouble.__cause__ = error
            if trouble_of(error) is Trouble.FAILED:
                self._refuse_all(self._trouble)
            else:
                await asyncio.sleep(_RETRY_S)
            return None
        self._trouble = None
        return connection

    async def _give_back(self, connection: DriverConnection, session: Session) -> None:
        with suppress(*DRIVER_ERRORS):  # whatever it is, the pool gets rid of the connection
            if session.broken is not None:
                connection.terminate()
            await self._pool.release(connection, timeout=self._options.command_timeout_s)

    def _next_batch(self) -> list[_Job]:
        """What waits, less a share for each other lane that has nothing to do."""
        idle = max(1, self._wanted() - self._busy)
        share = math.ceil(len(self._waiting) / idle)
        batch = [self._waiting.popleft() for _ in range(min(share, self._options.max_batch))]
        # Neighbours of one scope need no statement between them; in a scope they keep their order.
        return sorted(batch, key=lambda job: repr(scope_ids_of(job.op_factory)))

    async def _handle(self, session: Session, batch: list[_Job]) -> None:
        collisions = self._engine.collisions
        self._busy += 1
        try:
            outcomes = await self._engine.handle(session, [job.op_factory for job in batch])
        except BaseException as error:
            session.broken = StoreError(f"The work on {self._location} was ended by {error!r}.")
            for job, own in zip(batch, copies(session.broken, len(batch)), strict=True):
                settle(job.answer, Failed(own))
            raise
        finally:
            self._busy -= 1
        if session.broken is not None:
            self._trouble = session.broken
        self._adapt(session.round_trip_s, collided=self._engine.collisions > collisions)
        for job, outcome in zip(batch, outcomes, strict=True):
            if outcome is not None:
                settle(job.answer, outcome)
        self._again([job for job, outcome in zip(batch, outcomes, strict=True) if outcome is None])

    def _adapt(self, round_trip_s: float, *, collided: bool) -> None:
        """Fewer lanes with larger groups where lanes collide, and slowly more again."""
        # The shortest one of late: a busy machine makes others look as if the server were far.
        self._round_trip_s = min(round_trip_s, self._round_trip_s * 1.05 or round_trip_s)
        if collided:
            self._width = max(1.0, self._width / 2)
        else:
            self._width = min(float(self._options.lanes), self._width + _MORE)

    def _again(self, lost: list[_Job]) -> None:
        """Back to the head of the queue, in their order."""
        self._waiting.extendleft(reversed(lost))
        if lost and self._next_deadline is not None:
            self._next_deadline.cancel()
            self._next_deadline = None
        self._watch()

    def _watch(self) -> None:
        """One timer, for the head of the queue: the queue is in the order of deadlines."""
        if self._next_deadline is None and self._waiting:
            self._next_deadline = self._loop.call_at(self._waiting[0].deadline, self._give_up)

    def _give_up(self) -> None:
        self._next_deadline = None
        now = self._loop.time()
        while self._waiting and self._waiting[0].deadline <= now:
            settle(self._waiting.popleft().answer, Failed(self._trouble_now()))
        self._watch()

    def _trouble_now(self) -> StoreError:
        patience = f"{self._options.patience_s:g} s"
        if self._trouble is not None:
            [own] = copies(self._trouble, 1)
            own.args = (f"{self._trouble} It was tried for {patience}.",)
            return own
        return StoreUnavailableError(
            f"Every connection to {self._location} was busy for {patience}; allow more, or ask for less at once.",
            location=self._location,
        )

    def _refuse_all(self, error: StoreError) -> None:
        jobs, self._waiting = self._waiting, deque()
        for job, own in zip(jobs, copies(error, len(jobs)), strict=True):
            settle(job.answer, Failed(own))
