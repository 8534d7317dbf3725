"""The manager of actions: asking, answering once, waiting without missing anything, and what becomes of the job."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import (
    ActionExpiredError,
    ActionManager,
    ActionNotFoundError,
    ActionPendingError,
    ActionSpec,
    ActionStatus,
    InMemoryActionStore,
    InMemoryJobStore,
    JobManager,
    JobNotFoundError,
    JobSpec,
    JobStateError,
    JobStatus,
    SqliteActionStore,
)
from agent_runtime.actions.sql_store import SqlActionStore
from agent_runtime.actions.store import ActionFilter
from runtime_core.clock import ManualClock
from runtime_core.errors import StoreUnavailableError
from runtime_core.stores.memory import MemoryDatabase

CONFIRM = ActionSpec(type="confirm", payload={"message": "Proceed?"})


@pytest.fixture
async def store() -> AsyncIterator[InMemoryActionStore]:
    async with InMemoryActionStore() as opened:
        yield opened


@pytest.fixture
def manager(store: InMemoryActionStore) -> ActionManager:
    return ActionManager(store)


@pytest.fixture
async def jobs() -> AsyncIterator[JobManager]:
    async with InMemoryJobStore() as opened:
        yield JobManager(opened)


async def started(jobs: JobManager, **facts: Any) -> str:
    job = await jobs.create(JobSpec(**facts))
    return (await jobs.start(job.job_id)).job_id


async def test_an_answer_wakes_whoever_waits(store: InMemoryActionStore) -> None:
    manager = ActionManager(store, poll_s=60)
    action = await manager.require_action(CONFIRM)
    waiting = [asyncio.create_task(manager.wait_for_resolution(action.action_id)) for _ in range(3)]
    await asyncio.sleep(0)
    await manager.resolve(action.resume_token, resolution={"confirmed": True}, resolved_by="ada")
    async with asyncio.timeout(20):
        answers = await asyncio.gather(*waiting)
    assert {each.resolved_by for each in answers} == {"ada"}
    assert all(each.is_granted for each in answers)
    assert (await manager.wait_for_resolution(action.action_id)) == answers[0]


async def test_an_answer_between_looking_and_waiting_is_heard(store: InMemoryActionStore) -> None:
    """The race of get-then-subscribe: the answer comes while the waiter reads."""

    class AnsweredWhileRead(SqlActionStore):
        async def get(self, scope_id: str, action_id: str) -> Any:
            action = await super().get(scope_id, action_id)
            if action is not None and not action.is_settled:
                await manager.resolve(action_id=action_id, resolution={})
            return action

    manager = ActionManager(AnsweredWhileRead(store._database), poll_s=60)
    action = await manager.require_action(CONFIRM)
    async with asyncio.timeout(20):
        assert (await manager.wait_for_resolution(action.action_id)).status is ActionStatus.RESOLVED


async def test_a_lost_signal_costs_one_look(tmp_path: Path) -> None:
    async with SqliteActionStore(tmp_path / "a.db") as here, SqliteActionStore(tmp_path / "a.db") as elsewhere:
        manager = ActionManager(here, poll_s=0.02)
        action = await manager.require_action(CONFIRM)
        waiting = asyncio.create_task(manager.wait_for_resolution(action.action_id))
        await ActionManager(elsewhere).resolve(action.resume_token, resolution={})
        async with asyncio.timeout(20):
            assert (await waiting).status is ActionStatus.RESOLVED


async def test_waiting_is_bounded_and_the_action_stays_open(manager: ActionManager) -> None:
    action = await manager.require_action(CONFIRM)
    with pytest.raises(ActionPendingError) as gave_up:
        await manager.wait_for_resolution(action.action_id, timeout_s=0.02)
    assert isinstance(gave_up.value, TimeoutError)
    assert (await manager.resolve(action.resume_token, resolution={})).status is ActionStatus.RESOLVED


async def test_an_action_expires_while_somebody_waits(manager: ActionManager) -> None:
    action = await manager.require_action(CONFIRM.model_copy(update={"timeout_seconds": 0.02}))
    async with asyncio.timeout(20):
        assert (await manager.wait_for_resolution(action.action_id)).status is ActionStatus.EXPIRED
    with pytest.raises(ActionExpiredError):
        await manager.resolve(action.resume_token, resolution={})


async def test_a_job_waits_for_all_its_open_actions(store: InMemoryActionStore, jobs: JobManager) -> None:
    manager = ActionManager(store, job_manager=jobs)
    job_id = await started(jobs)
    first = await manager.require_action(ActionSpec(job_id=job_id, type="confirm"))
    second = await manager.require_action(ActionSpec(job_id=job_id, type="input"))
    assert (await jobs.get(job_id)).waiting_on == (first.action_id, second.action_id)
    await manager.resolve(second.resume_token, resolution={"text": "yes"})
    assert (await jobs.get(job_id)).status is JobStatus.WAITING_ACTION
    await manager.cancel(first.action_id)
    assert (await jobs.get(job_id)).status is JobStatus.RUNNING
    assert (await jobs.complete(job_id)).status is JobStatus.SUCCEEDED


async def test_the_open_questions_of_a_job_can_be_withdrawn_together(
    store: InMemoryActionStore, jobs: JobManager
) -> None:
    manager = ActionManager(store, job_manager=jobs)
    job_id = await started(jobs)
    for _ in range(101):  # one more than a page of them
        await manager.require_action(ActionSpec(job_id=job_id, type="confirm"))
    await jobs.cancel(job_id)
    withdrawn = await manager.cancel_all(job_id)
    assert [action.status for action in withdrawn] == [ActionStatus.CANCELLED] * 101
    assert await manager.cancel_all(job_id) == []
    assert (await jobs.get(job_id)).status is JobStatus.CANCELLED


async def test_a_job_that_cannot_wait_leaves_no_open_question(store: InMemoryActionStore, jobs: JobManager) -> None:
    manager = ActionManager(store, job_manager=jobs)
    queued = await jobs.create(JobSpec())
    for job_id, error in ((queued.job_id, JobStateError), ("job-nowhere", JobNotFoundError)):
        with pytest.raises(error):
            await manager.require_action(ActionSpec(job_id=job_id, type="confirm"))
    assert {action.status for action in await manager.list()} == {ActionStatus.CANCELLED}


async def test_a_resolver_that_died_before_it_told_the_job_is_made_up_for(jobs: JobManager) -> None:
    """By whoever waits, or by the sweep."""
    async with MemoryDatabase() as database:
        manager = ActionManager(SqlActionStore(database), job_manager=jobs)
        died = ActionManager(SqlActionStore(database))  # it knows no jobs, so it cannot tell them
        for make_up in ("wait", "sweep"):
            job_id = await started(jobs)
            action = await manager.require_action(ActionSpec(job_id=job_id, type="confirm"))
            await died.resolve(action.resume_token, resolution={})
            assert (await jobs.get(job_id)).status is JobStatus.WAITING_ACTION
            await (manager.wait_for_resolution(action.action_id) if make_up == "wait" else manager.sweep())
            assert (await jobs.get(job_id)).status is JobStatus.RUNNING
        assert await manager.store.untold(limit=9) == []


async def test_a_job_store_that_is_gone_does_not_undo_an_answer(store: InMemoryActionStore) -> None:
    class Moody(InMemoryJobStore):
        down = False

        async def apply(self, *args: Any, **named: Any) -> Any:
            if self.down:
                raise StoreUnavailableError("The store is gone.")
            return await super().apply(*args, **named)

    async with Moody() as job_store:
        jobs = JobManager(job_store)
        manager = ActionManager(store, job_manager=jobs)
        job_id = await started(jobs)
        action = await manager.require_action(ActionSpec(job_id=job_id, type="confirm"))
        job_store.down = True
        assert (await manager.resolve(action.resume_token, resolution={})).status is ActionStatus.RESOLVED
        job_store.down = False
        await manager.sweep()
        assert (await jobs.get(job_id)).status is JobStatus.RUNNING


async def test_a_waiter_outlasts_a_store_that_is_gone_for_less_than_a_minute() -> None:
    class Moody(InMemoryActionStore):
        down = False

        async def get(self, scope_id: str, action_id: str) -> Any:
            if self.down:
                looked.set()
                raise StoreUnavailableError("The store is gone.")
            return await super().get(scope_id, action_id)

    clock, looked = ManualClock(), asyncio.Event()
    async with Moody() as store, asyncio.timeout(10):
        manager = ActionManager(store, clock=clock, poll_s=0.01)
        for minutes in (0.9, 1.0):
            action = await manager.require_action(CONFIRM)
            waiting = asyncio.create_task(manager.wait_for_resolution(action.action_id))
            looked.clear()
            store.down = True
            await looked.wait()
            clock.advance(60 * minutes)
            looked.clear()
            await looked.wait()
            store.down = False
            await manager.resolve(action.resume_token, resolution={})
            if minutes < 1:
                assert (await waiting).status is ActionStatus.RESOLVED
            else:
                with pytest.raises(StoreUnavailableError):
                    await waiting


async def test_a_question_that_cannot_be_withdrawn_keeps_nobody_from_leaving() -> None:
    class Moody(InMemoryActionStore):
        async def apply(self, *args: Any, **named: Any) -> Any:
            raise StoreUnavailableError("The store is gone.")

    async with Moody() as store:
        manager = ActionManager(store)
        asking = asyncio.create_task(manager.ask(CONFIRM))
        async with asyncio.timeout(10):
            while not await manager.list():
                await asyncio.sleep(0.001)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_the_sweep_expires_and_moves_jobs_of_all_scopes(store: InMemoryActionStore) -> None:
    clock = ManualClock()
    async with InMemoryJobStore() as job_store:
        jobs = JobManager(job_store, clock=clock)
        manager = ActionManager(store, job_manager=jobs, clock=clock)
        waiting: list[str] = []
        for scope_id in ("tenant-1", "tenant-2"):
            waiting.append(await started(jobs, scope_id=scope_id))
            spec = ActionSpec(scope_id=scope_id, job_id=waiting[-1], type="confirm", timeout_seconds=5)
            await manager.require_action(spec)
        assert await manager.sweep() == []
        clock.advance(5)
        assert {action.scope_id for action in await manager.sweep()} == {"tenant-1", "tenant-2"}
        assert [(await jobs.get(job_id)).status for job_id in waiting] == [JobStatus.RUNNING] * 2


async def test_the_same_request_may_be_repeated_with_an_id_of_the_callers_own(manager: ActionManager) -> None:
    spec = CONFIRM.model_copy(update={"action_id": "approve-order-7"})
    first, second = await manager.require_action(spec), await manager.require_action(spec)
    assert first.action_id == second.action_id
    with pytest.raises(ActionNotFoundError):
        await manager.resolve(first.resume_token, resolution={})
    assert (await manager.resolve(second.resume_token, resolution={})).status is ActionStatus.RESOLVED
    assert len(await manager.list()) == 1


async def test_an_answer_is_a_json_object(manager: ActionManager) -> None:
    action = await manager.require_action(CONFIRM)
    with pytest.raises(ValueError):
        await manager.resolve(action.resume_token, resolution={"x": object()})
    with pytest.raises(ValueError, match="takes the resume_token or the action_id"):
        await manager.resolve(resolution={})


async def test_an_answer_that_names_both_must_have_the_token_of_that_action(manager: ActionManager) -> None:
    first, second = [await manager.require_action(CONFIRM) for _ in range(2)]
    with pytest.raises(ActionNotFoundError):
        await manager.resolve(second.resume_token, action_id=first.action_id, resolution={})
    answered = await manager.resolve(first.resume_token, action_id=first.action_id, resolution={"approved": True})
    assert (answered.action_id, answered.is_granted) == (first.action_id, True)
    assert [action.action_id for action in await manager.list(ActionFilter(status=ActionStatus.PENDING))] == [
        second.action_id
    ]
