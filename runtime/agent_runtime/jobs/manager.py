"""The life of jobs: their records in a store, and the work that runs for them in this process."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from agent_runtime.actions.signals import LocalSignalChannel, SignalChannel
from agent_runtime.errors import JobNotFoundError, JobStateError
from agent_runtime.events.bus import EventBus
from agent_runtime.jobs import announce
from agent_runtime.jobs.failure import failure_of
from agent_runtime.jobs.machine import (
    ActionSettled,
    Cancel,
    Fail,
    JobEvent,
    Look,
    Progress,
    Renew,
    Start,
    Succeed,
    WaitForAction,
)
from agent_runtime.jobs.records import JobFailure, JobRecord, JobSpec, JobStatus, new_job
from agent_runtime.jobs.running import RunningWork, Stop
from agent_runtime.jobs.store import JobCursor, JobFilter, JobPage, JobStore
from agent_runtime.jobs.supervise import Holder, Supervision, Work
from agent_runtime.repeat import Patience, until_known
from agent_runtime.scopes import Scopes, place
from runtime_core.clock import Clock, SystemClock
from runtime_core.errors import StoreUnavailableError
from runtime_core.ids import IdSource, RandomIds

LEASE_S = 60.0
POLL_S = 1.0
STORE_PATIENCE_S = 60.0
MOST_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Submitted:
    """`is_new`: this call made the job; otherwise it is an earlier one with the same idempotency key."""

    job: JobRecord
    is_new: bool


class JobManager:
    """Creates jobs, moves them from state to state, and runs work for them.

    A manager that is bound to a `scope_id` (`for_scope`) reaches that scope alone. One that is not takes the scope
    of each JobSpec, and knows its own jobs by their ids. All views of one manager share the work that they run, and
    an `owner` under which they hold jobs: for `lease_s`, renewed while work runs. A job whose worker is gone is
    handed out again by `recover`, up to `max_attempts` times.

    Every method may raise StoreError; a change whose answer was lost is sent again before that.
    """

    def __init__(
        self,
        store: JobStore,
        *,
        scope_id: str | None = None,
        event_bus: EventBus | None = None,
        signal_channel: SignalChannel | None = None,
        clock: Clock | None = None,
        ids: IdSource | None = None,
        lease_s: float = LEASE_S,
        poll_s: float = POLL_S,
        max_attempts: int = MOST_ATTEMPTS,
    ) -> None:
        self.store = store
        self.clock = clock or SystemClock()
        self.lease_s = lease_s
        self._scopes = Scopes(scope_id)
        self._bus = event_bus
        self._signals = signal_channel or LocalSignalChannel()
        self._ids = ids or RandomIds()
        self._poll_s = poll_s
        self._max_attempts = max_attempts
        self._running = RunningWork()
        self.owner = self._ids.new("worker")

    @property
    def scope_id(self) -> str | None:
        """The one scope of this manager; None if it is not bound to one."""
        return self._scopes.bound_to

    def for_scope(self, scope_id: str) -> Self:
        """The same manager, bound to one scope. Raises ScopeMismatchError if it is bound to another already."""
        view = copy.copy(self)
        view._scopes = self._scopes.bound(scope_id)
        return view

    async def create(self, spec: JobSpec) -> JobRecord:
        """The new job, or the first one with its idempotency key; `submit` says which.

        Raises ScopeMismatchError, JobConflictError, StoreQuotaError for one key too many, and for its parent
        JobNotFoundError or JobStateError.
        """
        return (await self.submit(spec)).job

    async def submit(self, spec: JobSpec) -> Submitted:
        """`create`, and whether this call made the job: only then its work is the caller's to do."""
        now = self.clock.now()
        wanted = new_job(
            spec,
            scope_id=self._scopes.for_new(spec.scope_id),
            job_id=self._ids.new("job"),
            now=now,
            owner=self.owner,
            lease_until=self._lease(),
        )
        job = await until_known(lambda: self.store.create(wanted), self.clock)
        self._scopes.remember(job.job_id, job.scope_id)
        is_new = job.job_id == wanted.job_id
        if is_new and self._bus is not None:
            await self._bus.publish(announce.created(job))
        return Submitted(job, is_new)

    async def get(self, job_id: str) -> JobRecord:
        """Raises JobNotFoundError."""
        job = await self.store.get(self._scopes.of(job_id), job_id)
        if job is None:
            raise JobNotFoundError(f"There is no job {job_id!a} in this scope.", job_id=job_id)
        return job

    async def list(
        self, which: JobFilter | None = None, *, after: JobCursor | None = None, limit: int = 100
    ) -> JobPage:
        """A page of the scope's jobs, the oldest first; `after` is the page before's `next`."""
        return await self.store.list(self._scopes.for_new(None), which, after=after, limit=limit)

    async def start(self, job_id: str) -> JobRecord:
        """This worker takes a queued job, or one whose worker is gone. Raises JobStateError, JobNotFoundError."""
        return await self._apply(job_id, Start(self.owner, self._lease()))

    async def renew(self, job_id: str) -> JobRecord:
        """Hold the job for another `lease_s`. Raises JobStateError when it is not this worker's any more."""
        return await self._apply(job_id, Renew(self.owner, self._lease()))

    async def complete(self, job_id: str, *, result_ref: str | None = None) -> JobRecord:
        """The job succeeded. Raises JobStateError, JobNotFoundError."""
        return await self._apply(job_id, Succeed(result_ref))

    async def fail(self, job_id: str, error: str | BaseException | JobFailure) -> JobRecord:
        """The job failed. Raises JobStateError, JobNotFoundError."""
        return await self._apply(job_id, Fail(failure_of(error)))

    async def progress(self, job_id: str, fraction: float) -> JobRecord:
        """How far the job is, from 0 to 1. Raises JobStateError, JobNotFoundError, ValueError."""
        if not 0 <= fraction <= 1:
            raise ValueError(f"progress goes from 0 to 1, not to {fraction!r}")
        return await self._apply(job_id, Progress(float(fraction)))

    async def wait_action(self, job_id: str, action_id: str) -> JobRecord:
        """The job cannot go on before that action is settled. Raises JobStateError, JobNotFoundError."""
        return await self._apply(job_id, WaitForAction(action_id))

    async def action_settled(self, job_id: str, action_id: str) -> JobRecord:
        """The action needs nobody any more; the job runs again when it waits on no other one."""
        return await self._apply(job_id, ActionSettled(action_id))

    async def cancel(self, job_id: str, *, reason: str = "it was cancelled") -> JobRecord:
        """End the job and every job that it started, and stop the work that runs for them.

        Work in other processes stops when it hears the signal, at the latest when it renews its lease. A job that
        is cancelled already stays so. Raises JobStateError for one that ended otherwise, JobNotFoundError.
        """
        job = await self._apply(job_id, Cancel(reason))
        await self._cancel_children(job, reason)
        return job

    def register(self, job_id: str, stop: Stop) -> Callable[[], None]:
        """`stop` is called with the reason when the job is cancelled or times out here; the result takes it back."""
        return self._running.add((self._scopes.of(job_id), job_id), stop)

    async def run(self, job_id: str, work: Work) -> JobRecord:
        """Start the job, do its work, and end it as the work ends: the job as it then is.

        `work` returns the `result_ref`. What it raises is recorded and not raised here. It is cancelled when the
        job is, at its deadline, and when another worker has taken the job over. Cancelling `run` cancels the job.
        """
        key = (self._scopes.of(job_id), job_id)
        holder = Holder(
            owner=self.owner,
            lease_s=self.lease_s,
            clock=self.clock,
            running=self._running,
            signals=self._signals,
            signal_key=signal_key(*key),
            apply=lambda event: self._apply_to(key, event),
            read=lambda: self.get(job_id),
            cancel=lambda reason: self.cancel(job_id, reason=reason),
        )
        return await Supervision(key, work, holder).run()

    async def wait(self, job_id: str, *, timeout_s: float | None = None) -> JobRecord:
        """The job when it has ended; or as it is after `timeout_s`.

        Raises JobNotFoundError, and StoreUnavailableError when the store has been gone for a minute.
        """
        scope_id = self._scopes.of(job_id)
        give_up = None if timeout_s is None else self.clock.monotonic() + timeout_s
        patience = Patience(self.clock, limit_s=STORE_PATIENCE_S)
        async with self._signals.listen(signal_key(scope_id, job_id)) as listener:
            while True:
                left = None if give_up is None else give_up - self.clock.monotonic()
                try:
                    job = await self._look(job_id)
                except StoreUnavailableError as exc:
                    patience.excuse(exc)
                    if left is not None and left <= 0:
                        raise
                else:
                    patience.renew()
                    if job.is_terminal or (left is not None and left <= 0):
                        return job
                await listener.wait(timeout_s=self._poll_s if left is None else min(self._poll_s, left))

    async def sweep(self, *, limit: int = 100) -> list[JobRecord]:
        """Time out up to `limit` jobs of all scopes whose deadline has passed; those. Call it now and then.

        Raises ScopeMismatchError on a manager that is bound.
        """
        self._scopes.all_of_them("sweep()")
        overdue = await self.store.overdue(now=self.clock.now(), limit=limit)
        return [await self._apply_to((job.scope_id, job.job_id), Look()) for job in overdue]

    async def recover(self, *, limit: int = 100) -> list[JobRecord]:
        """Take up to `limit` jobs of all scopes whose worker is gone; those, started and held by this worker.

        One that was begun `max_attempts` times already is failed instead. Raises ScopeMismatchError on a manager
        that is bound.
        """
        self._scopes.all_of_them("recover()")
        taken: list[JobRecord] = []
        for lapsed in await self.store.lapsed(now=self.clock.now(), limit=limit):
            key = (lapsed.scope_id, lapsed.job_id)
            with suppress(JobStateError, JobNotFoundError):  # somebody else was first
                job = await self._apply_to(key, Start(self.owner, self._lease()))
                if job.attempt > self._max_attempts:
                    lost = JobFailure(code="worker_lost", message=f"Its worker was lost {lapsed.attempt} times.")
                    await self._apply_to(key, Fail(lost, by=self.owner))
                elif job.status is JobStatus.RUNNING:
                    self._scopes.remember(job.job_id, job.scope_id)
                    taken.append(job)
        return taken

    async def _look(self, job_id: str) -> JobRecord:
        """The job as it is, timed out if its deadline has passed."""
        job = await self.get(job_id)
        if job.is_overdue(self.clock.now()):
            return await self._apply(job_id, Look())
        return job

    async def _apply(self, job_id: str, event: JobEvent) -> JobRecord:
        job = await self._apply_to((self._scopes.of(job_id), job_id), event)
        if job.status is JobStatus.TIMED_OUT and not isinstance(event, Look):
            raise JobStateError(
                f"Job {job_id} is past its deadline, so {type(event).__name__} is not possible.",
                job_id=job_id,
                status=job.status.value,
                event=type(event).__name__,
                owner=job.owner,
            )
        return job

    async def _apply_to(self, key: tuple[str, str], event: JobEvent) -> JobRecord:
        now = self.clock.now()
        job = await until_known(lambda: self.store.apply(*key, event, now=now), self.clock)
        if job.updated_at == now:
            await self._tell(job, event)
        return job

    async def _tell(self, job: JobRecord, event: JobEvent) -> None:
        """The job was changed just now: whoever works for it, waits for it, or listens."""
        key = (job.scope_id, job.job_id)
        if job.is_terminal and job.status is not JobStatus.SUCCEEDED:
            self._running.stop(key, job.error.message if job.error else job.status.value)
        if job.is_terminal:
            await self._signals.notify(signal_key(*key))
        if self._bus is not None and (news := announce.changed(job, event)) is not None:
            await self._bus.publish(news)

    async def _cancel_children(self, parent: JobRecord, reason: str) -> None:
        which, after = JobFilter(parent_job_id=parent.job_id), None
        while True:
            page = await self.store.list(parent.scope_id, which, after=after)
            await asyncio.gather(*(self._cancel_child(job, reason) for job in page.jobs))
            if (after := page.next) is None:
                return

    async def _cancel_child(self, job: JobRecord, reason: str) -> None:
        if not job.is_terminal:
            with suppress(JobStateError):  # it ended by itself in between
                await self._apply_to((job.scope_id, job.job_id), Cancel(reason))
        await self._cancel_children(job, reason)

    def _lease(self) -> datetime:
        return self.clock.now() + timedelta(seconds=self.lease_s)


def signal_key(scope_id: str, job_id: str) -> str:
    """Rung when the job ends."""
    return f"job:{place(scope_id, job_id)}"
