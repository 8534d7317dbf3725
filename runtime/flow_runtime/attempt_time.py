"""The time that an attempt of a node has, which does not run while a person is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class AttemptTime:
    """The timeout of one attempt: that of the block, and of the tasks that it starts.

    Several of its calls may wait for people at once.
    """

    def __init__(self, bound: asyncio.Timeout) -> None:
        self._bound = bound
        self._waiting = 0
        self._left_s = 0.0

    def __enter__(self) -> None:
        self._token = current.set(self)

    def __exit__(self, *exc_info: object) -> None:
        current.reset(self._token)

    def stop(self) -> None:
        self._waiting += 1
        when = self._bound.when()
        if self._waiting == 1 and when is not None and not self._bound.expired():
            self._left_s = when - asyncio.get_running_loop().time()
            self._bound.reschedule(None)

    def go_on(self) -> None:
        self._waiting -= 1
        if self._waiting == 0 and self._bound.when() is None and not self._bound.expired():
            self._bound.reschedule(asyncio.get_running_loop().time() + self._left_s)


# Between an attempt and a question lie prompts, agents, searches and tasks of their own.
current: ContextVar[AttemptTime | None] = ContextVar("agentflow_attempt_time", default=None)


@contextmanager
def stopped() -> Iterator[None]:
    """The time of the running attempt does not run in this block."""
    time = current.get()
    if time is None:
        yield
        return
    time.stop()
    try:
        yield
    finally:
        time.go_on()
