"""A worker process is killed: no job is lost, none ends twice, and an open question survives (rows 10, 11, 34)."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import defaultdict
from pathlib import Path

from agent_runtime import (
    ActionManager,
    ActionStatus,
    JobManager,
    JobRecord,
    JobStatus,
    SqliteActionStore,
    SqliteJobStore,
)
from runtime_core.stores.sqlite import SqliteDatabase
from support.job_process import LEASE_S, WORKERS


async def killed_worker(file: Path, *, after: int) -> dict[str, list[list[str]]]:
    """What a worker process said before it was killed, in the middle of its work."""
    path = filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "support.job_process", str(file)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
    )
    assert process.stdout is not None
    lines = [await process.stdout.readline() for _ in range(after)]
    process.kill()
    rest, _ = await process.communicate()
    said: dict[str, list[list[str]]] = defaultdict(list)
    for line in (*lines, *rest.splitlines(keepends=True)):
        if line.endswith(b"\n"):
            word, *values = line.decode().split()
            said[word].append(values)
    return said


async def test_what_a_killed_worker_held_is_taken_over_and_what_it_ended_stays_ended(tmp_path: Path) -> None:
    said = await killed_worker(tmp_path / "jobs.db", after=150)
    done = {job_id for [job_id] in said["done"]}
    [[action_id, token]] = said["asked"]
    async with SqliteDatabase(tmp_path / "jobs.db") as database:
        jobs = JobManager(SqliteJobStore(database))
        actions = ActionManager(SqliteActionStore(database), job_manager=jobs)
        stored = {job.job_id: job for job in (await jobs.list(limit=10_000)).jobs}
        assert {job_id for [job_id] in said["made"]} <= stored.keys()
        assert {job_id for job_id, job in stored.items() if job.status is JobStatus.SUCCEEDED} >= done
        left = {job_id for job_id, job in stored.items() if not job.is_terminal}
        assert 1 <= len(left) <= WORKERS

        asking = (await actions.get(action_id)).job_id
        assert asking in left and stored[asking].status is JobStatus.WAITING_ACTION
        assert (await actions.resolve(token, resolution={"approved": True})).status is ActionStatus.RESOLVED
        assert (await jobs.get(asking)).status is JobStatus.RUNNING

        taken: set[str] = set()
        async with asyncio.timeout(10 + LEASE_S):
            while taken != left:
                taken |= {job.job_id for job in await jobs.recover()}
                await asyncio.sleep(0.02)

        async def again(job: JobRecord) -> str:
            return "second time"

        for job_id in taken:
            assert (await jobs.run(job_id, again)).status is JobStatus.SUCCEEDED
        assert all(job.is_terminal for job in (await jobs.list(limit=10_000)).jobs)
        assert await jobs.recover() == []
