"""Stores for tests: new ones of every kind, and processes that use one. The journal they write is shipped."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent_runtime.testing.journal import JOURNAL, add, entry_ids, persist, prepare_journal, record, total

__all__ = [
    "JOURNAL",
    "add",
    "entry_ids",
    "fresh_store_url",
    "persist",
    "prepare_journal",
    "record",
    "store_process",
    "total",
    "until",
]


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until `condition` holds; the test's own timeout ends a wait for nothing."""
    while not condition():
        await asyncio.sleep(0.001)


@asynccontextmanager
async def store_process(*args: str, failpoints: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    """`support.store_process` in a process of its own, killed at the end if it still runs."""
    path = filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "support.store_process",
        *args,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path), "AGENTFLOW_FAILPOINTS": failpoints},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        # Reads the pipe to its end, so that its transport closes with the process.
        await process.communicate()


async def fresh_store_url(kind: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """The address of a new, empty store: `memory`, `sqlite` in the folder, or `postgres` on the shared server."""
    if kind == "postgres":
        return await request.getfixturevalue("postgres_server").fresh_url()
    return "memory:" if kind == "memory" else f"sqlite:///{folder}/store.db"
