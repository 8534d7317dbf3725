"""The model calls that a piece of work started end with it.

mellea starts a request when it makes a thunk, and goes on with it although nobody waits any more: a node that ran out
of time would be billed for an answer that it never sees.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

_started: ContextVar[set[asyncio.Task[Any]] | None] = ContextVar("mellea_runtime_started", default=None)


@asynccontextmanager
async def call_scope() -> AsyncIterator[None]:
    """Whatever call of this block, or of the threads and tasks that it starts, still runs at its end is cancelled."""
    tasks: set[asyncio.Task[Any]] = set()
    token = _started.set(tasks)
    try:
        yield
    finally:
        _started.reset(token)
        mine: list[asyncio.Task[Any]] = []
        for task in tuple(tasks):
            loop = task.get_loop()
            if loop is asyncio.get_running_loop():
                task.cancel()
                mine.append(task)
            elif not loop.is_closed():
                loop.call_soon_threadsafe(task.cancel)
        await asyncio.gather(*mine, return_exceptions=True)


def belongs(task: asyncio.Task[Any]) -> None:
    """The task is a call of the block that is going on, if there is one."""
    if (tasks := _started.get()) is not None:
        tasks.add(task)
        task.add_done_callback(tasks.discard)
