"""The manager of jobs: what runs, what stops it, and who takes over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import (
    ActionManager,
    InMemoryActionStore,
    InMemoryEventBus,
    InMemoryJobStore,
    JobConflictError,
    JobManager,
    JobNotFoundError,
    JobRecord,
    JobSpec,
    JobStateError,
    JobStatus,
    LocalSignalChannel,
    RuntimeEvent,
    RuntimeEventType,
    ScopeMismatchError,
    SqliteJobStore,
)
from agent_runtime.jobs.sql_store import SqlJobStore
from agent_runtime.jobs.store import JobFilter
from runtime_core.clock import ManualClock
from runtime_core.errors import StoreUnavailableError
from runtime_core.stores.memory import MemoryDatabase
from support.stores import until


@pytest.fixture
async def store() -> AsyncIterator[InMemoryJobStore]:
    async with InMemoryJobStore() as opened:
        yield opened


@pytest.fixture
def manager(store: InMemoryJobStore) -> JobManager:
    return JobManager(store)


class Working:
    """Work that runs until it is told to end, and says what became of it."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.may_end = asyncio.Event()
        self.cancelled = False

    async def __call__(self, job: JobRecord) -> str | None:
        self.started.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return f"result of {job.job_id}"


async def running(manager: JobManager, job_id: str) -> tuple[Working, asyncio.Task[JobRecord]]:
    work = Working()
    task = asyncio.create_task(manager.run(job_id, work))
    await work.started.wait()
    return work, task


async def test_work_that_returns_makes_the_job_succeed(manager: JobManager) -> None:
    job = await manager.create(JobSpec())
    work, task = await running(manager, job.job_id)
    assert (await manager.get(job.job_id)).status is JobStatus.RUNNING
    work.may_end.set()
    done = await task
    assert (done.status, done.result_ref, done.progress) == (JobStatus.SUCCEEDED, f"result of {job.job_id}", 1.0)
    assert await manager.get(job.job_id) == done


async def test_cancelling_a_job_cancels_its_work(manager: JobManager) -> None:
    job = await manager.create(JobSpec())
    work, task = await running(manager, job.job_id)
    cancelled = await manager.cancel(job.job_id, reason="no longer needed")
    assert (await task) == cancelled
    assert work.cancelled
    assert cancelled.error is not None and cancelled.error.message == "no longer needed"
    assert await manager.cancel(job.job_id) == cancelled


async def test_cancelling_a_parent_ends_its_fifty_children_and_their_children(manager: JobManager) -> None:
    parent = await manager.create(JobSpec())
    children = [await manager.create(JobSpec(parent_job_id=parent.job_id)) for _ in range(50)]
    grandchild = await manager.create(JobSpec(parent_job_id=children[0].job_id))
    done = await manager.create(JobSpec(parent_job_id=parent.job_id))
    await manager.start(done.job_id)
    await manager.complete(done.job_id)
    works = [await running(manager, job.job_id) for job in (*children, grandchild)]
    began = time.process_time()
    async with asyncio.timeout(20):
        await manager.cancel(parent.job_id)
        ended = await asyncio.gather(*(task for _, task in works))
    assert time.process_time() - began < 2
    assert {job.status for job in ended} == {JobStatus.CANCELLED}
    assert all(work.cancelled for work, _ in works)
    assert (await manager.get(done.job_id)).status is JobStatus.SUCCEEDED
    with pytest.raises(JobStateError):
        await manager.create(JobSpec(parent_job_id=parent.job_id))


async def test_a_job_cancelled_in_another_process_stops_here_by_its_signal(store: InMemoryJobStore) -> None:
    signals = LocalSignalChannel()  # as Redis would be between processes
    here = JobManager(store, signal_channel=signals)
    elsewhere = JobManager(store, signal_channel=signals)
    job = await here.create(JobSpec())
    work, task = await running(here, job.job_id)
    await elsewhere.cancel(job.job_id)
    assert (await task).status is JobStatus.CANCELLED
    assert work.cancelled


async def test_without_a_signal_it_stops_when_it_renews_its_lease(store: InMemoryJobStore) -> None:
    here, elsewhere = JobManager(store, lease_s=0.09), JobManager(store)
    job = await here.create(JobSpec())
    work, task = await running(here, job.job_id)
    await elsewhere.cancel(job.job_id)
    assert (await task).status is JobStatus.CANCELLED
    assert work.cancelled


async def test_a_deadline_ends_the_work_and_the_job(store: InMemoryJobStore) -> None:
    clock = ManualClock()
    manager = JobManager(store, clock=clock)
    job = await manager.create(JobSpec(timeout_seconds=5))
    work, task = await running(manager, job.job_id)
    await until(lambda: clock.sleepers > 0)
    clock.advance(5)
    assert (await task).status is JobStatus.TIMED_OUT
    assert work.cancelled
    with pytest.raises(JobStateError):
        await manager.complete(job.job_id)


async def test_a_deadline_that_nobody_watched_is_noticed_by_whoever_comes_next(store: InMemoryJobStore) -> None:
    clock = ManualClock()
    manager = JobManager(store, clock=clock)
    jobs = [await manager.create(JobSpec(timeout_seconds=5)) for _ in range(3)]
    clock.advance(5)
    with pytest.raises(JobStateError, match="past its deadline"):
        await manager.start(jobs[0].job_id)
    assert (await manager.get(jobs[0].job_id)).status is JobStatus.TIMED_OUT
    assert (await manager.wait(jobs[1].job_id)).status is JobStatus.TIMED_OUT
    assert [job.job_id for job in await manager.sweep()] == [jobs[2].job_id]
    assert await manager.sweep() == []


async def test_an_error_of_the_work_is_recorded_with_its_code(manager: JobManager) -> None:
    async def broken(job: JobRecord) -> None:
        raise StoreUnavailableError("The feature store is gone.")

    async def refused(job: JobRecord) -> None:
        raise JobConflictError("no")

    for work, code in ((broken, "StoreUnavailableError"), (refused, "idempotency_conflict")):
        job = await manager.run((await manager.create(JobSpec())).job_id, work)
        assert job.status is JobStatus.FAILED
        assert job.error is not None and job.error.code == code


async def test_cancelling_whoever_runs_a_job_cancels_the_job(manager: JobManager) -> None:
    job = await manager.create(JobSpec())
    work, task = await running(manager, job.job_id)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.cancelled
    assert (await manager.get(job.job_id)).status is JobStatus.CANCELLED


async def test_a_job_that_was_cancelled_while_it_started_does_no_work(manager: JobManager) -> None:
    job = await manager.create(JobSpec())
    await manager.cancel(job.job_id)
    with pytest.raises(JobStateError):
        await manager.run(job.job_id, Working())


async def test_a_repeated_create_is_the_first_job(manager: JobManager) -> None:
    first = await manager.submit(JobSpec(idempotency_key="k", request_hash="a"))
    again = await manager.submit(JobSpec(idempotency_key="k", request_hash="a"))
    assert (first.is_new, again.is_new, again.job) == (True, False, first.job)
    with pytest.raises(JobConflictError):
        await manager.submit(JobSpec(idempotency_key="k", request_hash="b"))
    assert (await manager.submit(JobSpec(scope_id="tenant-2", idempotency_key="k", request_hash="b"))).is_new


async def test_a_lost_worker_is_replaced_until_it_was_lost_too_often(tmp_path: Path) -> None:
    clock = ManualClock()
    async with SqliteJobStore(tmp_path / "jobs.db") as store:
        workers = [JobManager(store, clock=clock, lease_s=10, max_attempts=2) for _ in range(3)]
        job = await workers[0].create(JobSpec(scope_id="tenant-1"))
        await workers[0].start(job.job_id)
        assert await workers[1].recover() == []
        clock.advance(10)
        [taken] = await workers[1].recover()
        assert (taken.job_id, taken.attempt, taken.owner) == (job.job_id, 2, workers[1].owner)
        with pytest.raises(JobStateError):
            await workers[0].renew(job.job_id)
        assert (await workers[1].progress(job.job_id, 0.5)).progress == 0.5, "it knows the scope of what it took"
        clock.advance(10)
        assert await workers[2].recover() == []
        failed = await workers[0].get(job.job_id)
        assert failed.status is JobStatus.FAILED
        assert failed.error is not None and failed.error.code == "worker_lost"


async def test_a_worker_that_came_back_in_time_keeps_its_job() -> None:
    class LateNews(InMemoryJobStore):
        async def lapsed(self, **bounds: Any) -> list[JobRecord]:
            found = await super().lapsed(**bounds)
            await worker.renew(found[0].job_id)
            return found

    clock = ManualClock()
    async with LateNews() as store:
        worker = JobManager(store, clock=clock, lease_s=10)
        job = await worker.create(JobSpec())
        await worker.start(job.job_id)
        clock.advance(10)
        assert await JobManager(store, clock=clock, max_attempts=1).recover() == []
        assert (await worker.complete(job.job_id)).status is JobStatus.SUCCEEDED


async def test_a_worker_that_was_replaced_stops_and_does_not_end_the_job(store: InMemoryJobStore) -> None:
    clock = ManualClock()
    slow, quick = JobManager(store, clock=clock, lease_s=9), JobManager(store, clock=clock, lease_s=9)
    job = await slow.create(JobSpec())
    work, task = await running(slow, job.job_id)
    clock.step(10)  # it slept, and its lease ran out
    [taken] = await quick.recover()
    work.may_end.set()
    assert (await task).owner == quick.owner
    assert (await quick.get(job.job_id)).status is JobStatus.RUNNING
    assert (await quick.complete(taken.job_id)).status is JobStatus.SUCCEEDED


class Moody(MemoryDatabase):
    """It takes no change while it is `down`."""

    down = False

    async def run(self, op_factory: Any) -> Any:
        if self.down:
            raise StoreUnavailableError("The store is gone.")
        return await super().run(op_factory)


async def test_an_outage_that_is_shorter_than_the_lease_loses_no_job() -> None:
    database, clock = Moody(), ManualClock()
    async with database:
        store = SqlJobStore(database)
        worker, other = JobManager(store, clock=clock, lease_s=60), JobManager(store, clock=clock, lease_s=60)
        job = await worker.create(JobSpec())
        work, task = await running(worker, job.job_id)
        database.down = True
        for _ in range(58):
            await until(lambda: clock.sleepers == 1)
            clock.advance(1)
        database.down = False
        await until(lambda: clock.sleepers == 1)
        clock.advance(1)
        await until(lambda: clock.sleepers == 1)
        clock.advance(2)
        assert await other.recover() == [], "its first lease is over, and it was renewed in time"
        work.may_end.set()
        assert (await task).status is JobStatus.SUCCEEDED


async def test_a_job_runs_through_a_store_that_is_gone_for_a_while() -> None:
    database, clock = Moody(), ManualClock()
    async with database:
        manager = JobManager(SqlJobStore(database), clock=clock, lease_s=9)
        job = await manager.create(JobSpec())
        work, task = await running(manager, job.job_id)
        database.down = True
        with pytest.raises(StoreUnavailableError):
            await manager.progress(job.job_id, 0.5)
        await until(lambda: clock.sleepers == 1)
        clock.advance(3)
        await until(lambda: clock.sleepers == 1)
        database.down = False
        clock.advance(3)
        work.may_end.set()
        assert (await task).status is JobStatus.SUCCEEDED


async def test_an_answer_that_the_store_lost_is_asked_for_again() -> None:
    class Forgetful(MemoryDatabase):
        lost = 0

        async def run(self, op_factory: Any) -> Any:
            result = await super().run(op_factory)
            self.lost += 1
            if self.lost % 2:
                raise StoreUnavailableError("Executed, then timed out.", outcome_unknown=True)
            return result

    async with Forgetful() as database:
        store = SqlJobStore(database)
        for _ in range(2):
            try:
                await store.prepare()
            except StoreUnavailableError:
                continue
        seen: list[RuntimeEventType] = []
        bus = InMemoryEventBus()
        await bus.subscribe(lambda event: seen.append(event.type))
        manager = JobManager(store, event_bus=bus)
        job = await manager.create(JobSpec(idempotency_key="k"))
        await manager.start(job.job_id)
        await manager.complete(job.job_id, result_ref="r")
        await bus.flush()
        assert seen == [RuntimeEventType.JOB_CREATED, RuntimeEventType.JOB_STARTED, RuntimeEventType.JOB_COMPLETED]
        assert len((await manager.list()).jobs) == 1


async def test_waiting_for_a_job_ends_with_it(manager: JobManager) -> None:
    job = await manager.create(JobSpec())
    assert (await manager.wait(job.job_id, timeout_s=0)).status is JobStatus.QUEUED
    waiting = asyncio.create_task(manager.wait(job.job_id))
    await manager.start(job.job_id)
    await manager.complete(job.job_id, result_ref="r")
    assert (await waiting).result_ref == "r"


async def test_the_bus_hears_every_step_in_order(store: InMemoryJobStore) -> None:
    bus = InMemoryEventBus()
    manager = JobManager(store, event_bus=bus)
    seen: list[RuntimeEvent] = []
    await bus.subscribe(seen.append, scope_id="tenant-1")
    job = await manager.create(JobSpec(scope_id="tenant-1", session_id="s"))
    await manager.start(job.job_id)
    await manager.start(job.job_id)
    await manager.progress(job.job_id, 0.5)
    await manager.wait_action(job.job_id, "a")
    await manager.action_settled(job.job_id, "a")
    await manager.fail(job.job_id, "it broke")
    await bus.flush()
    assert [event.type.value for event in seen] == [
        "job.created",
        "job.started",
        "job.progress",
        "job.waiting_action",
        "job.resumed",
        "job.failed",
    ]
    assert {(event.job_id, event.session_id) for event in seen} == {(job.job_id, "s")}
    assert seen[-1].data["error"] == {"code": "failed", "message": "it broke"}


async def test_a_bound_manager_never_leaves_its_scope(manager: JobManager) -> None:
    theirs = await manager.create(JobSpec(scope_id="tenant-2"))
    mine = manager.for_scope("tenant-1")
    for call in (mine.get, mine.start, mine.cancel, mine.complete, mine.renew):
        with pytest.raises(JobNotFoundError):
            await call(theirs.job_id)
    with pytest.raises(ScopeMismatchError) as refused:
        await mine.create(JobSpec(scope_id="tenant-2"))
    assert (refused.value.scope_id, refused.value.bound_to) == ("tenant-2", "tenant-1")
    with pytest.raises(ScopeMismatchError):
        mine.for_scope("tenant-2")
    for for_all in (mine.sweep, mine.recover, ActionManager(InMemoryActionStore(), scope_id="tenant-1").sweep):
        with pytest.raises(ScopeMismatchError, match="for all scopes"):
            await for_all()
    assert (await mine.list(JobFilter())).jobs == []
    assert (await mine.create(JobSpec())).scope_id == "tenant-1"


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
async def test_progress_goes_from_nothing_to_all(manager: JobManager, fraction: float) -> None:
    job = await manager.create(JobSpec())
    with pytest.raises(ValueError):
        await manager.progress(job.job_id, fraction)
