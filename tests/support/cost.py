"""What a call costs: for payloads that try to be expensive."""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from agentflow.errors import FlowError

YARDSTICK_MS = 8.0


def assert_cheap(call: Callable[[], Any], *, ms: float = 50, mib: float = 16) -> None:
    """The call takes less CPU time (in one of five tries) and memory at its peak; it may refuse with a FlowError.

    `ms` is for a quiet machine: on a busy one the same work takes more CPU time, and so does the yardstick.
    """
    assert any(_cpu_ms(call) < ms * _slowness() for _ in range(5))
    tracemalloc.start()
    try:
        _run(call)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < mib * 1024 * 1024


def _cpu_ms(call: Callable[[], Any]) -> float:
    start = time.thread_time()
    _run(call)
    return (time.thread_time() - start) * 1000


def _slowness() -> float:
    """How many times longer than on a quiet machine a fixed piece of work takes now, at least 1."""
    return max(1.0, _cpu_ms(lambda: sum(number * number for number in range(100_000))) / YARDSTICK_MS)


def _run(call: Callable[[], Any]) -> None:
    with contextlib.suppress(FlowError):
        call()
