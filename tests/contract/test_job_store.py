"""What every job store promises, alone and behind injected faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import BudgetSpec, JobConflictError, JobNotFoundError, JobStateError, PolicyRef, RunVersions
from agent_runtime.jobs.machine import Cancel, Fail, Look, Progress, Start, Succeed, WaitForAction
from agent_runtime.jobs.records import JobFailure, JobStatus
from agent_runtime.jobs.store import JobFilter
from runtime_core.errors import IdentityError
from support.agent_stores import KINDS, NOW, agent_database, job_of, job_store, later


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    async with agent_database(request.param, tmp_path) as database:
        yield await job_store(database)


async def test_a_job_comes_back_as_it_was_kept(store: Any) -> None:
    job = job_of(
        principal_id="user-1",
        session_id="session-1",
        run_id="run-1",
        idempotency_key="a key",
        request_hash="h",
        deadline=later(9.000001),
        lease_until=later(1),
        budgets=BudgetSpec(max_tokens=5, max_cost=Decimal("0.000001"), max_runtime_seconds=1.5),
        policy_ref=PolicyRef(name="production"),
        versions=RunVersions(model_version="gpt-4-0125"),
        metadata={"nested": [1, None, {"ü": 1.5}], "text": "'; DROP TABLE runtime_jobs; --"},
        tags=("a", "b"),
    )
    assert await store.create(job) == job
    assert await store.get("tenant-1", "job-1") == job
    ended = await store.apply("tenant-1", "job-1", Fail(JobFailure(code="c", message="m")), now=later(2))
    assert await store.get("tenant-1", "job-1") == ended
    assert (ended.status, ended.error, ended.completed_at) == (
        JobStatus.FAILED,
        JobFailure(code="c", message="m"),
        later(2),
    )


async def test_a_key_belongs_to_the_first_job_of_its_scope(store: Any) -> None:
    first = await store.create(job_of("job-1", idempotency_key="k", request_hash="h"))
    assert await store.create(job_of("job-2", idempotency_key="k", request_hash="h")) == first
    assert await store.create(job_of("job-1", idempotency_key="k", request_hash="h")) == first
    with pytest.raises(JobConflictError) as refused:
        await store.create(job_of("job-3", idempotency_key="k", request_hash="other"))
    assert refused.value.job_id == "job-1"
    other = await store.create(job_of("job-1", scope_id="tenant-2", idempotency_key="k", request_hash="other"))
    assert other.scope_id == "tenant-2"
    await store.create(job_of("job-4"))
    await store.create(job_of("job-5"))
    assert [job.job_id for job in (await store.list("tenant-1")).jobs] == ["job-1", "job-4", "job-5"]


async def test_of_twenty_that_create_with_one_key_one_creates(store: Any) -> None:
    jobs = await asyncio.gather(*(store.create(job_of(f"job-{n}", idempotency_key="k")) for n in range(20)))
    assert len({job.job_id for job in jobs}) == 1
    assert len((await store.list("tenant-1")).jobs) == 1


async def test_of_twenty_workers_one_starts(store: Any) -> None:
    await store.create(job_of())

    async def start(number: int) -> bool:
        try:
            await store.apply("tenant-1", "job-1", Start(f"w{number}", later(60)), now=NOW)
        except JobStateError as refused:
            assert refused.status == "running"
            return False
        return True

    assert sum(await asyncio.gather(*map(start, range(20)))) == 1
    job = await store.get("tenant-1", "job-1")
    assert (job.status, job.attempt, job.version) == (JobStatus.RUNNING, 1, 2)


async def test_what_is_repeated_happens_once(store: Any) -> None:
    await store.create(job_of())
    for event in (Start("w", later(60)), Progress(0.5), WaitForAction("a"), Cancel("enough")):
        first = await store.apply("tenant-1", "job-1", event, now=later(1))
        assert await store.apply("tenant-1", "job-1", event, now=later(2)) == first
    with pytest.raises(JobStateError):
        await store.apply("tenant-1", "job-1", Succeed("r"), now=later(3))


async def test_scopes_do_not_see_each_other(store: Any) -> None:
    await store.create(job_of())
    assert await store.get("tenant-2", "job-1") is None
    assert (await store.list("tenant-2")).jobs == []
    with pytest.raises(JobNotFoundError):
        await store.apply("tenant-2", "job-1", Cancel(), now=NOW)
    assert await store.forget("tenant-2", older_than=later(99), limit=10) == 0
    for nobody in ("", " tenant-1", "tenant-1\0"):
        with pytest.raises(IdentityError):
            await store.get(nobody, "job-1")


async def test_pages_follow_each_other(store: Any) -> None:
    for number in range(5):
        await store.create(job_of(f"job-{number}", created_at=later(number // 2), session_id=f"s{number % 2}"))
    first = await store.list("tenant-1", limit=2)
    second = await store.list("tenant-1", after=first.next, limit=2)
    third = await store.list("tenant-1", after=second.next, limit=2)
    assert [job.job_id for page in (first, second, third) for job in page.jobs] == [f"job-{n}" for n in range(5)]
    assert third.next is None
    odd = await store.list("tenant-1", JobFilter(session_id="s1", status=JobStatus.QUEUED))
    assert [job.job_id for job in odd.jobs] == ["job-1", "job-3"]


async def test_children_need_an_open_parent_and_end_with_its_deadline(store: Any) -> None:
    await store.create(job_of("parent", deadline=later(10)))
    for child, own, expected in (("a", None, later(10)), ("b", later(5), later(5)), ("c", later(99), later(10))):
        job = await store.create(job_of(child, parent_job_id="parent", deadline=own))
        assert job.deadline == expected
    children = await store.list("tenant-1", JobFilter(parent_job_id="parent"))
    assert [job.job_id for job in children.jobs] == ["a", "b", "c"]
    with pytest.raises(JobNotFoundError):
        await store.create(job_of("d", scope_id="tenant-2", parent_job_id="parent"))
    await store.apply("tenant-1", "parent", Cancel(), now=later(1))
    with pytest.raises(JobStateError, match="no more children"):
        await store.create(job_of("e", parent_job_id="parent"))
    assert (await store.create(job_of("a", parent_job_id="parent"))).deadline == later(10), "it was there before"


async def test_overdue_jobs_of_all_scopes_are_found_until_they_end(store: Any) -> None:
    await store.create(job_of("late", deadline=later(5)))
    await store.create(job_of("later", scope_id="tenant-2", deadline=later(3)))
    await store.create(job_of("never"))
    assert await store.overdue(now=later(2), limit=9) == []
    assert [job.job_id for job in await store.overdue(now=later(5), limit=9)] == ["later", "late"]
    assert (await store.apply("tenant-2", "later", Look(), now=later(5))).status is JobStatus.TIMED_OUT
    assert [job.job_id for job in await store.overdue(now=later(5), limit=1)] == ["late"]


async def test_jobs_whose_worker_is_gone_are_found(store: Any) -> None:
    await store.create(job_of("queued", lease_until=later(1)))
    await store.create(job_of("running"))
    await store.apply("tenant-1", "running", Start("w", later(3)), now=NOW)
    assert await store.lapsed(now=later(0.5), limit=9) == []
    assert [job.job_id for job in await store.lapsed(now=later(3), limit=9)] == ["queued", "running"]
    taken = await store.apply("tenant-1", "running", Start("other", later(9)), now=later(3))
    assert (taken.owner, taken.attempt) == ("other", 2)
    with pytest.raises(JobStateError) as refused:
        await store.apply("tenant-1", "running", Succeed("r", by="w"), now=later(4))
    assert refused.value.owner == "other"


async def test_ended_jobs_are_forgotten_by_age(store: Any) -> None:
    for number in range(3):
        await store.create(job_of(f"job-{number}"))
        await store.apply("tenant-1", f"job-{number}", Cancel(), now=later(number))
    await store.create(job_of("open"))
    while await store.forget("tenant-1", older_than=later(2), limit=1):
        pass
    assert [job.job_id for job in (await store.list("tenant-1")).jobs] == ["job-2", "open"]
