"""Between JSON values and the data frames of the Hopsworks client."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from flow_runtime.feature_store.protocol import Row


def records(frame: Any) -> list[Row]:
    """The rows of a pandas data frame as JSON values."""
    return [{str(name): plain(value) for name, value in row.items()} for row in frame.to_dict("records")]


def plain(value: Any) -> Any:
    """A value of a data frame as JSON; numpy's and pandas' own kinds of nothing become None."""
    if hasattr(value, "tolist"):  # numpy, arrays and scalars
        value = value.tolist()
    if isinstance(value, datetime):  # pandas' NaT is one that equals nothing
        return None if value != value else _utc(value).isoformat()
    if isinstance(value, float | Decimal):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, date):
        return value.isoformat()
    return str(value)


def event_value(time: datetime, kind: str) -> Any:
    """A time as a column of that Hopsworks type holds it."""
    match kind:
        case "bigint":
            return int(time.timestamp() * 1000)
        case "date":
            return time.date()
        case _:
            return time


def latest(rows: Sequence[Row], event_time: str | None, as_of: datetime | None) -> Row | None:
    """The row that held at a time; without one, the latest."""
    if event_time is None:
        return rows[-1] if rows else None
    timed = [(time, row) for row in rows if (time := _time(row.get(event_time))) is not None]
    held = [(time, row) for time, row in timed if as_of is None or time <= as_of]
    return max(held, key=lambda entry: entry[0])[1] if held else None


def _time(value: Any) -> datetime | None:
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value / 1000, UTC)
    return _utc(datetime.fromisoformat(value)) if isinstance(value, str) else None


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
