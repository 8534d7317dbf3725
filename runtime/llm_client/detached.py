"""Work that the caller's end must not interrupt: the log's row is ended also when nobody waits for the answer.

Where a client leaves, Ray cancels recursively along the task's context (and what it calls); a shielded task with
an empty context of its own is out of its reach.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Detached:
    """Tasks that outlive their callers, and are waited for at the end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which goes on when the caller is cancelled."""
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    def start(self, work: Coroutine[Any, Any, object]) -> None:
        """`run` without waiting. `work` must deal with its own errors."""
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Return when everything that was started has ended."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))
