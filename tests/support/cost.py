"""What a call costs: for payloads that try to be expensive."""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from agentflow.errors import FlowError

Answer = TypeVar("Answer")

YARDSTICK_MS = 8.0
TRIES = 5


def assert_cheap(call: Callable[[], Any], *, ms: float = 50, mib: float | None = 16) -> None:
    """The call takes less CPU time (in one of five tries) and memory at its peak; it may refuse with a FlowError.

    Where time is the only question, `mib` is None: measuring memory makes a call many times slower.

    `ms` is for a quiet machine: on a busy one the same work takes more CPU time, and so does the yardstick.
    """
    assert any(_within(_cpu_ms(call), ms) for _ in range(TRIES))
    if mib is None:
        return
    tracemalloc.start()
    try:
        _run(call)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < mib * 1024 * 1024


async def cheaply(ask: Callable[[], Awaitable[Answer]], *, ms: float = 50) -> Answer:
    """What `ask` gives, which takes this loop's thread less CPU time, as `assert_cheap` measures it."""
    spent: list[float] = []
    for _ in range(TRIES):
        start = time.thread_time()
        answer = await ask()
        spent.append((time.thread_time() - start) * 1000)
        if _within(spent[-1], ms):
            return answer
    raise AssertionError(f"none of {TRIES} tries took less than {ms:g} ms of CPU: {spent}")


def _cpu_ms(call: Callable[[], Any]) -> float:
    start = time.thread_time()
    _run(call)
    return (time.thread_time() - start) * 1000


def _within(spent_ms: float, ms: float) -> bool:
    return spent_ms < ms or spent_ms < ms * _slowness()


def _slowness() -> float:
    """How many times longer than on a quiet machine a fixed piece of work takes now, at least 1."""
    return max(1.0, _cpu_ms(lambda: sum(number * number for number in range(100_000))) / YARDSTICK_MS)


def _run(call: Callable[[], Any]) -> None:
    with contextlib.suppress(FlowError):
        call()
