"""Over what a limit counts: one request, a minute, a day, a month, or for ever. All of them in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache


class Window(StrEnum):
    """The values are how the limits of a Budget are named: `max_tokens_daily`."""

    REQUEST = "per_request"
    MINUTE = "per_minute"
    DAY = "daily"
    MONTH = "monthly"
    TOTAL = "total"


COUNTED = (Window.MINUTE, Window.DAY, Window.MONTH, Window.TOTAL)
"""The windows that have a counter."""

_FORMS = {Window.MINUTE: "%Y-%m-%dT%H:%M", Window.DAY: "%Y-%m-%d", Window.MONTH: "%Y-%m", Window.TOTAL: "total"}


def period(window: Window, at: int) -> str:
    """The name of the minute, day or month that `at` is in, in seconds since the epoch."""
    return periods(at)[COUNTED.index(window)]


def periods(at: int) -> tuple[str, ...]:
    """One for each window of COUNTED."""
    return _periods(at // 60)


@lru_cache(maxsize=1024)
def _periods(minute: int) -> tuple[str, ...]:
    moment = datetime.fromtimestamp(minute * 60, UTC)
    return tuple(moment.strftime(_FORMS[window]) for window in COUNTED)


def begins_at(window: Window, at: int) -> int:
    """When the window began that `at` is in; 0 for one without a beginning."""
    moment = datetime.fromtimestamp(at, UTC)
    match window:
        case Window.MINUTE:
            return at - at % 60
        case Window.DAY:
            return int(moment.replace(hour=0, minute=0, second=0).timestamp())
        case Window.MONTH:
            return int(moment.replace(day=1, hour=0, minute=0, second=0).timestamp())
        case _:
            return 0


def ends_at(window: Window, at: int) -> int | None:
    """When the next one begins; None for a window without an end."""
    begin = begins_at(window, at)
    match window:
        case Window.MINUTE:
            return begin + 60
        case Window.DAY:
            return begin + 86_400
        case Window.MONTH:
            after = datetime.fromtimestamp(begin, UTC) + timedelta(days=32)
            return int(after.replace(day=1).timestamp())
        case _:
            return None
