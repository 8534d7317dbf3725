"""What a caller holds of a run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field

from agent_runtime.errors import (
    BudgetExceededError,
    ExecutionCancelledError,
    ExecutionError,
    ExecutionFailedError,
    ExecutionTimedOutError,
    PolicyDenied,
)
from agent_runtime.events.types import RuntimeEvent
from agent_runtime.jobs import announce
from agent_runtime.jobs.machine import Look
from agent_runtime.jobs.manager import JobManager
from agent_runtime.jobs.records import JobRecord, JobStatus
from agent_runtime.kernel.request import ExecutionResult
from agent_runtime.kernel.run_log import RunLog
from llm_client.errors import CallRefused
from runtime_core.errors import StoreError


@dataclass(frozen=True, slots=True)
class ExecutionHandle:
    """A run that was asked for (source: agent-runtime, RuntimeKernel).

    `events()` and `result()` work in any order, and any number of times. `attached` says that an earlier request with
    the same idempotency key started the run.
    """

    job_id: str
    scope_id: str
    attached: bool
    jobs: JobManager = field(repr=False)
    log: RunLog | None = field(repr=False)
    stored: Callable[[], Awaitable[ExecutionResult | None]] = field(repr=False)
    cause: Callable[[], BaseException | None] = field(repr=False)

    async def events(self) -> AsyncGenerator[RuntimeEvent]:
        """Everything that happened in the run and will, from its first event on; ends when the run does.

        Of a run in another process only the end is heard here.
        """
        if self.log is None:
            if (news := announce.changed(await self.jobs.wait(self.job_id), Look())) is not None:
                yield news
            return
        async for event in self.log.events():
            yield event

    async def result(self, *, timeout_s: float | None = None) -> ExecutionResult:
        """The result, as soon as there is one.

        Raises ExecutionFailedError, ExecutionCancelledError or ExecutionTimedOutError as the run ended; PolicyDenied
        or BudgetExceededError if that is why. Raises TimeoutError after `timeout_s`; the run goes on.
        """
        async with asyncio.timeout(timeout_s):
            job = await self.ended()
        if job.status is not JobStatus.SUCCEEDED:
            raise error_of(job) from self.cause()
        if (result := await self.stored()) is None:
            message = (
                f"Job {job.job_id} succeeded, and its result is not here: it was deleted, or kept by another process."
            )
            raise ExecutionError(message, job_id=job.job_id)
        return result

    async def ended(self) -> JobRecord:
        """The job's record once the run is over, however it ended. Raises StoreError where that cannot be told."""
        if self.log is not None:
            await self.log.ended.wait()
            cause = self.cause()
            if isinstance(cause, StoreError) and not (await self.jobs.get(self.job_id)).is_terminal:
                raise cause
        return await self.jobs.wait(self.job_id)

    async def job(self) -> JobRecord:
        """The job's record as it is now."""
        return await self.jobs.get(self.job_id)

    async def cancel(self, *, reason: str = "it was cancelled") -> JobRecord:
        """End the run, and every run that it started. Raises JobStateError for one that ended otherwise."""
        return await self.jobs.cancel(self.job_id, reason=reason)


def error_of(job: JobRecord) -> ExecutionError | CallRefused:
    """What a job that ended without a result raises; by what is stored, so that it is the same in every process."""
    message = job.error.message if job.error else f"Job {job.job_id} is {job.status.value}."
    if job.status is JobStatus.CANCELLED:
        return ExecutionCancelledError(message, job_id=job.job_id)
    if job.status is JobStatus.TIMED_OUT:
        return ExecutionTimedOutError(message, job_id=job.job_id)
    code = job.error.code if job.error else None
    if code == PolicyDenied.code:
        return PolicyDenied(message, scope_id=job.scope_id)
    if code == BudgetExceededError.code:
        return BudgetExceededError(message, scope_id=job.scope_id)
    return ExecutionFailedError(message, job_id=job.job_id, failure=code)
