"""Tells a scenario that waits for a number to grow when it has waited long enough."""

from __future__ import annotations

import time
from collections.abc import Callable


class Stall:
    """Of one number, which only those who look at it know; the first look starts the clock."""

    def __init__(self, after_s: float, *, now: Callable[[], float] = time.monotonic) -> None:
        self._after_s = after_s
        self._now = now
        self._most = -1
        self._grew_at = 0.0

    def at(self, number: int) -> bool:
        """Whether it has not grown for longer than that, by all that was seen of it."""
        now = self._now()
        if number > self._most:
            self._most, self._grew_at = number, now
        return now > self._grew_at + self._after_s
