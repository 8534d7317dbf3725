"""Operations wait here for a connection, and then go together; nobody waits longer than was promised.

Lanes are tasks in an empty context, and a cancelled caller leaves its operation in the queue: a client that
disconnects under Ray Serve cancels everything it can reach, and a commit must not be among that.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from runtime_core.errors import StoreError, StoreUnavailableError
from runtime_core.stores.outcome import Done, Failed, Outcome
from runtime_core.stores.postgres_driver import DriverConnection, DriverPool
from runtime_core.stores.postgres_errors import DRIVER_ERRORS, Trouble, translate, trouble_of
from runtime_core.stores.postgres_group import Engine, copies
from runtime_core.stores.postgres_session import Session
from runtime_core.stores.sql import OpFactory

T = TypeVar("T")

_log = logging.getLogger(__name__)

# Between two tries to connect: short, because a restarted server should find its users back within a second.
_RETRY_S = 0.1

# Lanes that are won back with each group that did not collide.
_MORE = 0.05


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
    timer: asyncio.TimerHandle | None = field(default=None)


class Lanes:
    """Up to `lanes` connections of the pool at a time, each with a batch. Use it on one event loop.

    A second lane begins only while the first one is busy, so little work takes few connections.
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
        self._trouble: StoreError | None = None

    async def submit(self, op_factory: OpFactory[T]) -> T:
        """The operation's result. Cancelling abandons only the answer."""
        answer: asyncio.Future[T] = self._loop.create_future()
        job = _Job(op_factory, answer, deadline=self._loop.time() + self._options.patience_s)
        self._waiting.append(job)
        self._watch(job)
        if self._running < int(self._width):
            self._running += 1
            lane = self._loop.create_task(self._work(), context=contextvars.Context())
            self._lanes.add(lane)
            lane.add_done_callback(self._lanes.discard)
        return await answer

    async def stop(self) -> None:
        """Return when what was submitted has its answer."""
        while self._lanes:
            await asyncio.wait(self._lanes)

    async def _work(self) -> None:
        try:
            while self._is_needed():
                connection = await self._acquire()
                if connection is not None:
                    await self._use(connection)
        finally:
            self._running -= 1

    async def _use(self, connection: DriverConnection) -> None:
        session = self._session_of(connection)
        try:
            while self._is_needed() and session.broken is None:
                await self._handle(session, self._next_batch())
        finally:
            await self._give_back(connection, session)
        if session.broken is not None:
            await asyncio.sleep(_RETRY_S)

    def _is_needed(self) -> bool:
        return bool(self._waiting) and self._running <= self._width

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
        idle = max(1, int(self._width) - self._busy)
        share = math.ceil(len(self._waiting) / idle)
        batch = [self._waiting.popleft() for _ in range(min(share, self._options.max_batch))]
        for job in batch:
            if job.timer is not None:
                job.timer.cancel()
        return batch

    async def _handle(self, session: Session, batch: list[_Job]) -> None:
        collisions = self._engine.collisions
        self._busy += 1
        try:
            outcomes = await self._engine.handle(session, [job.op_factory for job in batch])
        except BaseException as error:
            session.broken = StoreError(f"The work on {self._location} was ended by {error!r}.")
            for job, own in zip(batch, copies(session.broken, len(batch)), strict=True):
                _settle(job.answer, Failed(own))
            raise
        finally:
            self._busy -= 1
        if session.broken is not None:
            self._trouble = session.broken
        self._adapt(collided=self._engine.collisions > collisions)
        for job, outcome in zip(batch, outcomes, strict=True):
            if outcome is not None:
                _settle(job.answer, outcome)
        self._again([job for job, outcome in zip(batch, outcomes, strict=True) if outcome is None])

    def _adapt(self, *, collided: bool) -> None:
        """Fewer lanes with larger groups where lanes collide, and slowly more again."""
        if collided:
            self._width = max(1.0, self._width / 2)
        else:
            self._width = min(float(self._options.lanes), self._width + _MORE)

    def _again(self, lost: list[_Job]) -> None:
        """Back to the head of the queue, in their order."""
        self._waiting.extendleft(reversed(lost))
        for job in lost:
            self._watch(job)

    def _watch(self, job: _Job) -> None:
        job.timer = self._loop.call_at(job.deadline, self._give_up, job)

    def _give_up(self, job: _Job) -> None:
        self._waiting.remove(job)
        _settle(job.answer, Failed(self._trouble_for(job)))

    def _trouble_for(self, job: _Job) -> StoreError:
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
            if job.timer is not None:
                job.timer.cancel()
            _settle(job.answer, Failed(own))


def _settle(answer: asyncio.Future[Any], outcome: Outcome) -> None:
    if not answer.done():
        if isinstance(outcome, Done):
            answer.set_result(outcome.value)
        else:
            answer.set_exception(outcome.error)
    elif isinstance(outcome, Failed):
        _log.warning("A store operation failed after its caller had left: %s", outcome.error)
