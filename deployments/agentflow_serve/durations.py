"""How people write times: so long (90d, 12h, 30m, 45s, 2w), or a moment in ISO 8601."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_FORM = re.compile(r"([1-9][0-9]{0,4})([smhdw])")

FORMS = "a number and s, m, h, d or w"


def seconds_of(text: str) -> float | None:
    """How many seconds a duration is; None for text that is none."""
    found = _FORM.fullmatch(text)
    return None if found is None else float(int(found[1]) * _SECONDS[found[2]])


def moment_of(text: str, *, now: datetime) -> datetime | None:
    """A moment, or so long before `now`; without an offset it is UTC. None for text that is neither."""
    if (seconds := seconds_of(text)) is not None:
        return now - timedelta(seconds=seconds)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    try:
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except OverflowError:  # the first or the last day of the calendar, somewhere else on earth
        return None
