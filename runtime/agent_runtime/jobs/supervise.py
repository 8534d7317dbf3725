"""Work for a job, from its start to its end: held by a lease, bounded by the deadline, stopped when the job is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from agent_runtime.actions.signals import Listener, SignalChannel
from agent_runtime.errors import JobNotFoundError, JobStateError
from agent_runtime.jobs.failure import failure_of
from agent_runtime.jobs.machine import Fail, JobEvent, Look, Renew, Start, Succeed
from agent_runtime.jobs.records import JobRecord
from agent_runtime.jobs.running import JobKey, RunningWork
from runtime_core.backoff import exponential_s
from runtime_core.clock import Clock
from runtime_core.errors import StoreError

logger = logging.getLogger(__name__)

Work = Callable[[JobRecord], Awaitable[str | None]]

FIRST_STORE_PAUSE_S = 0.05
STORE_PAUSE_S = 1.0
"""Before a store that was gone is asked again: the first pause, which doubles, and the longest."""


@dataclass(frozen=True, slots=True)
class Holder:
    """What a supervision needs of its manager. `apply` changes the job and tells everybody, `read` looks at it."""

    owner: str
    lease_s: float
    clock: Clock
    running: RunningWork
    signals: SignalChannel
    signal_key: str
    apply: Callable[[JobEvent], Awaitable[JobRecord]]
    read: Callable[[], Awaitable[JobRecord]]
    cancel: Callable[[str], Awaitable[JobRecord]]


class Supervision:
    """One run of one job's work."""

    def __init__(self, key: JobKey, work: Work, holder: Holder) -> None:
        self._key = key
        self._work = work
        self._holder = holder
        self._doing: asyncio.Task[Any] | None = None
        self._stopped = False

    async def run(self) -> JobRecord:
        """The job as it is in the end. Raises JobStateError or JobNotFoundError if it cannot start, StoreError."""
        holder = self._holder
        # Heard from before the start on: no cancellation can fall between.
        async with holder.signals.listen(holder.signal_key) as listener:
            take_back = holder.running.add(self._key, self._stop)
            try:
                job = await holder.apply(Start(holder.owner, self._lease()))
                if job.is_terminal or self._stopped:
                    return job if job.is_terminal else await holder.read()
                return await self._supervise(job, listener)
            finally:
                take_back()

    async def _supervise(self, job: JobRecord, listener: Listener) -> JobRecord:
        doing = self._doing = asyncio.create_task(_awaited(self._work(job)))
        watching = [asyncio.create_task(self._hold(job)), asyncio.create_task(self._listen(listener))]
        try:
            await asyncio.wait((doing,))
        except asyncio.CancelledError:
            doing.cancel()
            await _gone([doing])
            await self._give_up()
            raise
        finally:
            for task in watching:
                task.cancel()
            await _gone(watching)
        return await self._end(doing)

    async def _end(self, doing: asyncio.Task[Any]) -> JobRecord:
        holder = self._holder
        if doing.cancelled():
            return await (holder.apply(Look()) if self._stopped else holder.cancel("its work was cancelled"))
        event: JobEvent
        if (error := doing.exception()) is None:
            event = Succeed(doing.result(), by=holder.owner)
        else:
            event = Fail(failure_of(error), by=holder.owner)
        try:
            return await holder.apply(event)
        except JobStateError:  # it was cancelled, timed out or taken over in between
            return await holder.read()

    async def _give_up(self) -> None:
        try:
            await asyncio.shield(asyncio.ensure_future(self._holder.cancel("whoever ran it was cancelled")))
        except (JobStateError, JobNotFoundError):
            pass
        except StoreError:
            logger.warning("job %s was abandoned; its lease runs out", self._key[1], exc_info=True)

    async def _hold(self, job: JobRecord) -> None:
        """Renew the lease, and notice the deadline, whatever the store says."""
        holder, failed = self._holder, 0
        while True:
            await holder.clock.sleep(self._until_renewal(job, failed))
            try:
                job = await holder.apply(Renew(holder.owner, self._lease()))
            except (JobStateError, JobNotFoundError) as exc:
                return self._stop(str(exc))
            except StoreError:
                failed += 1
                if failed == 1:
                    logger.warning("the lease of job %s could not be renewed yet", job.job_id, exc_info=True)
                if job.is_overdue(holder.clock.now()):
                    return self._stop("the job's deadline passed")
            else:
                failed = 0
            if job.is_terminal:
                return self._stop("the job has ended")

    def _until_renewal(self, job: JobRecord, failed: int) -> float:
        """Seconds: a third of the lease, far less after a failure, and never past the deadline."""
        pause = self._holder.lease_s / 3
        if failed:
            pause = min(pause, STORE_PAUSE_S, exponential_s(FIRST_STORE_PAUSE_S, failed))
        if job.deadline is None:
            return pause
        return max(0.0, min(pause, (job.deadline - self._holder.clock.now()).total_seconds()))

    async def _listen(self, listener: Listener) -> None:
        """Somebody in another process ended the job."""
        while True:
            await listener.wait(timeout_s=None)
            try:
                job = await self._holder.read()
            except (StoreError, JobNotFoundError):
                continue  # the next renewal will tell
            if job.is_terminal:
                return self._stop("the job has ended")

    def _stop(self, reason: str) -> None:
        self._stopped = True
        if self._doing is not None:
            self._doing.cancel(reason)

    def _lease(self) -> datetime:
        return self._holder.clock.now() + timedelta(seconds=self._holder.lease_s)


async def _awaited(work: Awaitable[str | None]) -> str | None:
    return await work


async def _gone(tasks: list[asyncio.Task[Any]]) -> None:
    """Return when the tasks have ended, even if the caller is cancelled meanwhile."""
    cancelled = False
    while not all(task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
