"""Jobs and actions to try stores with, and a caller that repeats what may have been lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

from agent_runtime.actions.records import ActionRecord
from agent_runtime.jobs.records import JobRecord
from agent_runtime.testing.journal import persist

NOW = datetime.fromisoformat("2026-03-01T12:00:00.123456+00:00")


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def job_of(job_id: str = "job-1", **facts: Any) -> JobRecord:
    return JobRecord(
        **{"scope_id": "tenant-1", "job_id": job_id, "created_at": NOW, "updated_at": NOW, "owner": "w", **facts}
    )


def action_of(action_id: str = "action-1", **facts: Any) -> ActionRecord:
    return ActionRecord(
        **{"scope_id": "tenant-1", "action_id": action_id, "type": "confirm", "created_at": NOW, **facts}
    )


class Persistent:
    """A store whose calls are repeated until it answers, as a caller with stable ids does."""

    def __init__(self, inner: object) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._inner, name)
        return lambda *args, **named: persist(lambda: method(*args, **named))
