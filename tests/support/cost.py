"""What a call costs: for payloads that try to be expensive."""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from agentflow.errors import FlowError


def assert_cheap(call: Callable[[], Any], *, ms: float = 50, mib: float = 16) -> None:
    """The call takes less CPU time (in one of three tries) and memory at its peak; it may refuse with a FlowError."""
    assert any(_cpu_ms(call) < ms for _ in range(3))
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


def _run(call: Callable[[], Any]) -> None:
    with contextlib.suppress(FlowError):
        call()
