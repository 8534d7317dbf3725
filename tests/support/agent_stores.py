"""Stores of jobs and actions on every kind of database, and callers that repeat what may have been lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from agent_runtime.actions.records import ActionRecord
from agent_runtime.actions.sql_store import SqlActionStore
from agent_runtime.jobs.records import JobRecord
from agent_runtime.jobs.sql_store import SqlJobStore
from runtime_core.stores import Database, open_database
from runtime_core.stores.faults import FaultyDatabase
from support.stores import persist

KINDS = ("memory", "sqlite", "faulty")
"""`faulty` loses a third of all calls or their answers."""


@asynccontextmanager
async def agent_database(kind: str, folder: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{folder}/runtime.db" if kind == "sqlite" else "memory:"
    async with open_database(url) as opened:
        yield FaultyDatabase(opened, Random(11), rate=0.33) if kind == "faulty" else opened


class Persistent:
    """A store or a manager whose calls are repeated until the store answers, as a caller with stable ids does."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._inner, name)
        return lambda *args, **named: persist(lambda: method(*args, **named))


async def job_store(database: Database) -> Any:
    return Persistent(SqlJobStore(database))


async def action_store(database: Database) -> Any:
    return Persistent(SqlActionStore(database))


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
