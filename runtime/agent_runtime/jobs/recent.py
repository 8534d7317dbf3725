"""Jobs as this process last stored them, so that it need not read them before it changes them again.

What is known here may be behind the store. That costs a statement, and never a change: whoever uses it changes the job
only where the store still has that version.
"""

from __future__ import annotations

from collections import OrderedDict

from agent_runtime.jobs.records import JobRecord

MOST = 1000


class RecentJobs:
    """Open jobs, the latest ones."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[tuple[str, str], JobRecord] = OrderedDict()

    def get(self, scope_id: str, job_id: str) -> JobRecord | None:
        return self._jobs.get((scope_id, job_id))

    def keep(self, job: JobRecord) -> None:
        """What the store has acknowledged. A job that has ended is not changed any more."""
        place = (job.scope_id, job.job_id)
        self._jobs.pop(place, None)
        if not job.is_terminal:
            self._jobs[place] = job
            if len(self._jobs) > MOST:
                self._jobs.popitem(last=False)
