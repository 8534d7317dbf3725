"""A process that runs jobs, to be killed: `python -m support.job_process FILE`.

It says `made ID`, `done ID` and `asked ID TOKEN` as soon as the store has acknowledged each.
"""

from __future__ import annotations

import asyncio
import sys

from agent_runtime import ActionManager, ActionSpec, JobManager, JobRecord, JobSpec, SqliteActionStore, SqliteJobStore
from runtime_core.stores.sqlite import SqliteDatabase
from support.call_log import say

LEASE_S = 0.5
WORKERS = 8


async def main(file: str) -> None:
    async with SqliteDatabase(file) as database:
        jobs = JobManager(SqliteJobStore(database), lease_s=LEASE_S)
        actions = ActionManager(SqliteActionStore(database), job_manager=jobs)

        async def ask(job: JobRecord) -> None:
            action = await actions.require_action(ActionSpec(job_id=job.job_id, type="confirm"))
            say("asked", action.action_id, action.resume_token)
            await actions.wait_for_resolution(action.action_id)

        async def work(job: JobRecord) -> str:
            await jobs.progress(job.job_id, 0.5)
            return f"result of {job.job_id}"

        async def worker(number: int) -> None:
            while True:
                job = await jobs.create(JobSpec())
                say("made", job.job_id)
                await jobs.run(job.job_id, ask if number == 0 else work)
                say("done", job.job_id)

        await asyncio.gather(*map(worker, range(WORKERS)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
