"""Waiting for conditions, never for durations."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


async def until(condition: Callable[[], object], *, within_s: float = 10.0, what: str = "the condition") -> None:
    """Return once `condition()` is true; fail when it is not `within_s` seconds later."""
    give_up = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up, f"{what} did not come true within {within_s:g} s"
        await asyncio.sleep(0.005)
