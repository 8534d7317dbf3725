"""Times and vectors, as every feature store takes them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from agentflow.types import kind_of

LARGEST_FLOAT32 = 3.4028234e38


def parse_time(value: Any) -> datetime:
    """A time from ISO-8601 text; without a zone it is in UTC. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"it is {kind_of(value)}, not a time such as 2026-01-31T12:00:00Z")
    try:
        time = datetime.fromisoformat(value)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise ValueError("it is text, but not a time such as 2026-01-31T12:00:00Z") from exc


def vector(value: Any) -> list[float]:
    """Raises ValueError for anything but finite numbers that a 32-bit float can hold."""
    if not isinstance(value, list) or not value:
        raise ValueError(f"it is {kind_of(value)}, not an array of numbers")
    for number in value:
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not abs(number) <= LARGEST_FLOAT32:
            raise ValueError("it holds something that is no number of 32 bits")
    return [float(number) for number in value]
