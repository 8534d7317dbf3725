"""How long a provider asks us to wait: its Retry-After, as seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def parse_retry_after(value: str, *, now: datetime) -> float | None:
    """Seconds to wait, from a Retry-After header: a number or an HTTP date. None when it is neither."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = max(0.0, (moment - now).total_seconds())
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def find_retry_after(causes: Sequence[BaseException], now: datetime) -> float | None:
    """What any-llm kept of it, or the header of a response that hangs on one of the errors."""
    for cause in causes:
        headers = getattr(getattr(cause, "response", None), "headers", None)
        from_header = headers.get("retry-after") if headers is not None else None
        for value in (getattr(cause, "retry_after", None), from_header):
            if isinstance(value, str) and (seconds := parse_retry_after(value, now=now)) is not None:
                return seconds
    return None
