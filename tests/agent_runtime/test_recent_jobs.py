"""A store knows what it wrote last and need not read it again; what others wrote meanwhile still counts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest

from agent_runtime import InMemoryJobStore, JobManager, JobSpec, JobStateError, JobStatus
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
    transition,
)
from agent_runtime.jobs.records import JobFailure
from agent_runtime.jobs.sql_store import SqlJobStore
from agent_runtime.testing.records import NOW, job_of, later
from runtime_core.stores.memory import MemoryDatabase
from runtime_core.stores.sql import Op, Sql


class Counting(MemoryDatabase):
    """It remembers the statements of its changes."""

    def __init__(self) -> None:
        super().__init__()
        self.statements: list[str] = []

    async def run(self, op_factory: Any) -> Any:
        def watched() -> Op[Any]:
            operation, rows = op_factory(), None
            while True:
                try:
                    statement: Sql = operation.send(rows)
                except StopIteration as done:
                    return done.value
                self.statements.append(statement.text.partition(" ")[0])
                rows = yield statement

        return await super().run(watched)


@pytest.fixture
async def database() -> AsyncIterator[MemoryDatabase]:
    async with MemoryDatabase() as opened:
        yield opened


async def test_a_job_that_nobody_else_touches_is_written_three_times_and_never_read() -> None:
    async with Counting() as database:
        manager = JobManager(SqlJobStore(database))
        await manager.store.list("default")
        database.statements.clear()
        job = await manager.create(JobSpec())
        await manager.start(job.job_id)
        assert (await manager.complete(job.job_id)).version == 3
        assert database.statements == ["INSERT", "UPDATE", "UPDATE"]


def an_event(rng: Random) -> JobEvent:
    who, what = rng.choice("ab"), rng.choice(("x", "y"))
    return rng.choice(
        [
            Start(who, later(rng.randint(0, 30))),
            Renew(who, later(rng.randint(0, 30))),
            Progress(rng.choice((0.1, 0.5))),
            Progress(rng.choice((0.1, 0.5))),
            WaitForAction(what),
            WaitForAction(what),
            ActionSettled(what),
            Look(),
            *([Succeed("r", by=who), Fail(JobFailure(code="c", message="m"), by=who), Cancel()][: rng.randint(0, 1)]),
        ]
    )


@pytest.mark.parametrize("seed", range(15))
async def test_three_stores_on_one_database_change_a_job_as_one_would(database: MemoryDatabase, seed: int) -> None:
    rng = Random(seed)
    stores = [SqlJobStore(database) for _ in range(3)]
    expected = [job_of(f"job-{n}", deadline=later(40) if n else None) for n in range(3)]
    for job in expected:
        await rng.choice(stores).create(job)
    for step in range(120):
        n, event, now = rng.randrange(3), an_event(rng), later(step / 3)
        store = rng.choice(stores)
        try:
            expected[n] = transition(expected[n], event, now)
        except JobStateError as refused:
            with pytest.raises(JobStateError) as also:
                await store.apply("tenant-1", f"job-{n}", event, now=now)
            assert str(also.value) == str(refused)
        else:
            assert await store.apply("tenant-1", f"job-{n}", event, now=now) == expected[n]
    for job in expected:
        assert await stores[0].get("tenant-1", job.job_id) == job


async def test_what_another_process_did_is_seen_before_anything_is_refused_or_changed() -> None:
    async with InMemoryJobStore() as mine:
        theirs = SqlJobStore(mine.database)
        await mine.create(job_of())
        await theirs.apply("tenant-1", "job-1", Start("other", later(60)), now=NOW)
        assert (await mine.apply("tenant-1", "job-1", Progress(0.5), now=NOW)).owner == "other"
        await theirs.apply("tenant-1", "job-1", Cancel("enough"), now=NOW)
        with pytest.raises(JobStateError) as refused:
            await mine.apply("tenant-1", "job-1", Succeed("r"), now=NOW)
        assert refused.value.status == JobStatus.CANCELLED
