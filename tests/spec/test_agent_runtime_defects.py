"""What such a system usually gets wrong, by the list of the contract: a test for each entry, named after it.

The entries that concern jobs, actions, policy and events; the others stand with the modules that they are about.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent_runtime import (
    ActionManager,
    ActionSpec,
    ActionStatus,
    ExecutionContext,
    InMemoryActionStore,
    InMemoryEventBus,
    InMemoryJobStore,
    JobManager,
    JobRecord,
    JobSpec,
    JobStateError,
    JobStatus,
    PolicyDenied,
    PolicyEngine,
    PolicyMiddleware,
    RuntimeEvent,
    RuntimeEventType,
    ToolPolicy,
)
from llm_client import CallRefused, RequestContext, tool
from llm_client.agent.middleware.chain import ToolInvocation
from runtime_core.clock import ManualClock
from runtime_core.errors import StoreUnavailableError


@pytest.fixture
async def jobs() -> AsyncIterator[JobManager]:
    async with InMemoryJobStore() as store:
        yield JobManager(store)


@pytest.fixture
async def actions(jobs: JobManager) -> AsyncIterator[ActionManager]:
    async with InMemoryActionStore() as store:
        yield ActionManager(store, job_manager=jobs)


async def test_events_then_result_hangs() -> None:
    """Reading all events of a job and then its result, or the other way round, ends."""
    bus = InMemoryEventBus()
    async with InMemoryJobStore() as store, asyncio.timeout(10):
        jobs = JobManager(store, event_bus=bus)
        for events_first in (True, False):
            job = await jobs.create(JobSpec())
            async with bus.events(job_id=job.job_id) as stream:
                running = asyncio.create_task(jobs.run(job.job_id, _return("r")))
                if not events_first:
                    assert (await running).result_ref == "r"
                seen: list[RuntimeEventType] = []
                async for event in stream:
                    seen.append(event.type)
                    if event.type is RuntimeEventType.JOB_COMPLETED:
                        break
            assert seen == [RuntimeEventType.JOB_STARTED, RuntimeEventType.JOB_COMPLETED]
            assert (await running).result_ref == (await jobs.wait(job.job_id)).result_ref == "r"


async def test_denial_surfaces_as_value_error() -> None:
    @tool
    def delete_file(name: str) -> str:
        """Delete a file."""
        return name

    async def unreachable(call: ToolInvocation) -> str:
        raise AssertionError("it was called")

    middleware = PolicyMiddleware(PolicyEngine([ToolPolicy(tool_patterns=("delete_*",), deny=True)]))
    call = ToolInvocation(tool=delete_file, call_id="c", arguments={"name": "x"}, context=RequestContext())
    with pytest.raises(PolicyDenied) as denied:
        await middleware(call, unreachable)
    assert isinstance(denied.value, CallRefused)
    assert not isinstance(denied.value, ValueError)


async def test_idempotent_resubmit_runs_twice(jobs: JobManager) -> None:
    runs: list[str] = []

    async def work(job: JobRecord) -> str:
        runs.append(job.job_id)
        return "r"

    async def submit() -> JobRecord:
        submitted = await jobs.submit(JobSpec(idempotency_key="k"))
        if submitted.is_new:
            return await jobs.run(submitted.job.job_id, work)
        return await jobs.wait(submitted.job.job_id)

    results = await asyncio.gather(*(submit() for _ in range(10)))
    assert len(runs) == 1
    assert {job.result_ref for job in results} == {"r"}


async def test_cancel_flips_a_record_only(jobs: JobManager) -> None:
    job = await jobs.create(JobSpec())
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def work(job: JobRecord) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    running = asyncio.create_task(jobs.run(job.job_id, work))
    await started.wait()
    await jobs.cancel(job.job_id)
    async with asyncio.timeout(20):
        assert (await running).status is JobStatus.CANCELLED
    assert cancelled.is_set()


async def test_deadline_never_enforced(jobs: JobManager) -> None:
    """Neither for a job that runs here, nor for one that nobody runs."""
    async with asyncio.timeout(10):
        job = await jobs.create(JobSpec(timeout_seconds=0.05))
        forgotten = await jobs.create(JobSpec(timeout_seconds=0.05))
        assert (await jobs.run(job.job_id, _sleep_for_ever)).status is JobStatus.TIMED_OUT
        assert (await jobs.wait(forgotten.job_id, timeout_s=5)).status is JobStatus.TIMED_OUT


async def test_agent_error_recorded_as_success(jobs: JobManager) -> None:
    async def work(job: JobRecord) -> str:
        raise StoreUnavailableError("The model's memory is gone.")

    job = await jobs.run((await jobs.create(JobSpec())).job_id, work)
    assert (job.status, job.result_ref) == (JobStatus.FAILED, None)
    assert job.error is not None and job.error.message == "The model's memory is gone."
    with pytest.raises(JobStateError):
        await jobs.complete(job.job_id, result_ref="r")


async def test_wait_on_an_expired_action_blocks_forever(actions: ActionManager) -> None:
    for swept in (True, False):
        action = await actions.require_action(ActionSpec(type="confirm", timeout_seconds=0.001))
        await asyncio.sleep(0.002)
        if swept:
            await actions.sweep()
        async with asyncio.timeout(20):
            assert (await actions.wait_for_resolution(action.action_id)).status is ActionStatus.EXPIRED


async def test_expiry_leaves_the_job_waiting() -> None:
    """The job goes on, and its own code decides what an answer that did not come means."""
    clock = ManualClock()
    async with InMemoryJobStore() as job_store, InMemoryActionStore() as store:
        jobs = JobManager(job_store, clock=clock)
        actions = ActionManager(store, job_manager=jobs, clock=clock)
        for notices in (actions.sweep, actions.wait_for_resolution, actions.cancel, actions.resolve):
            job = await jobs.create(JobSpec())
            await jobs.start(job.job_id)
            spec = ActionSpec(job_id=job.job_id, type="confirm", timeout_seconds=5)
            action = await actions.require_action(spec)
            assert (await jobs.get(job.job_id)).status is JobStatus.WAITING_ACTION
            clock.advance(5)
            await _notice(notices, action.action_id)
            assert (await jobs.get(job.job_id)).status is JobStatus.RUNNING, notices
            assert (await actions.get(action.action_id)).status is ActionStatus.EXPIRED


async def test_get_then_subscribe_races(jobs: JobManager, actions: ActionManager) -> None:
    """What happens between looking and listening is not missed: no waiter here ever polls in time."""
    patient = ActionManager(actions.store, poll_s=3600)
    for _ in range(50):
        action = await patient.require_action(ActionSpec(type="confirm"))
        waiting = asyncio.create_task(patient.wait_for_resolution(action.action_id))
        answering = asyncio.create_task(patient.resolve(action.resume_token, resolution={"approved": True}))
        async with asyncio.timeout(20):
            assert (await waiting).is_granted
        await answering


async def test_two_open_actions_per_job_are_legal(jobs: JobManager, actions: ActionManager) -> None:
    job = await jobs.create(JobSpec())
    await jobs.start(job.job_id)
    opened = [await actions.require_action(ActionSpec(job_id=job.job_id, type="confirm")) for _ in range(2)]
    for action, after in zip(opened, (JobStatus.WAITING_ACTION, JobStatus.RUNNING), strict=True):
        await actions.resolve(action.resume_token, resolution={})
        assert (await jobs.get(job.job_id)).status is after


async def test_a_slow_or_raising_subscriber_hurts_somebody_else() -> None:
    bus = InMemoryEventBus(max_queued=100)
    heard: list[RuntimeEvent] = []

    async def slow(event: RuntimeEvent) -> None:
        await asyncio.Event().wait()

    async def raising(event: RuntimeEvent) -> None:
        raise RuntimeError("not my day")

    slowly = await bus.subscribe(slow)
    await bus.subscribe(raising)
    await bus.subscribe(heard.append)
    for _ in range(500):
        await bus.publish(RuntimeEvent(type=RuntimeEventType.JOB_STARTED))
    async with asyncio.timeout(20):
        while len(heard) < 500:
            await asyncio.sleep(0)
    assert slowly.dropped == 399
    await slowly.unsubscribe()


async def test_patterns_are_regexes_from_users() -> None:
    engine = PolicyEngine([ToolPolicy(tool_patterns=("^(a+)+$", "file.*"), deny=True)])
    for name in ("a" * 31 + "!", "file_read"):
        assert (await engine.check_tool(name, ExecutionContext())).allowed
    assert not (await engine.check_tool("file.read", ExecutionContext())).allowed


def _return(result: str) -> Any:
    async def work(job: JobRecord) -> str:
        return result

    return work


async def _sleep_for_ever(job: JobRecord) -> None:
    await asyncio.Event().wait()


async def _notice(how: Any, action_id: str) -> None:
    """One of the ways in which somebody meets an action whose time is up."""
    match how.__name__:
        case "sweep":
            await how()
        case "resolve":
            with pytest.raises(Exception, match="expired"):
                await how(action_id=action_id, resolution={})
        case _:
            await how(action_id)
