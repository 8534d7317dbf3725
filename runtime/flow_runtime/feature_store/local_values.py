"""Between JSON values and the columns of a local feature store."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from agentflow.types import kind_of
from flow_runtime.feature_store.local_schema import ColumnType
from flow_runtime.feature_store.values import parse_time, vector

SQL_TYPES: Mapping[ColumnType, str] = MappingProxyType(
    {
        "string": "VARCHAR",
        "integer": "BIGINT",
        "number": "DOUBLE",
        "boolean": "BOOLEAN",
        "timestamp": "TIMESTAMPTZ",
        "json": "VARCHAR",
        "embedding": "FLOAT[]",
    }
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LARGEST_INTEGER = 2**63 - 1


def to_column(value: Any, kind: ColumnType) -> Any:
    """A JSON value as what goes into a column; times become microseconds since 1970. Raises ValueError: what it is."""
    return None if value is None else _TO[kind](value)


def from_column(value: Any, kind: ColumnType) -> Any:
    """The JSON value of what came out of a column. Raises ValueError, OverflowError for damaged data."""
    return None if value is None else _FROM[kind](value)


def microseconds(time: datetime) -> int:
    return (time - EPOCH) // timedelta(microseconds=1)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"it is {kind_of(value)}, not a string")
    value.encode()  # half of a surrogate pair is a ValueError
    return value


def _integer(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > LARGEST_INTEGER:
        raise ValueError(f"it is {kind_of(value)}, not a whole number of 64 bits")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < math.inf:
        raise ValueError(f"it is {kind_of(value)}, not a finite number")
    try:
        return float(value)
    except OverflowError as exc:
        raise ValueError("it is a number of too many digits") from exc


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"it is {kind_of(value)}, not a boolean")
    return value


def _time(value: Any) -> int:
    return microseconds(parse_time(value))


def _json(value: Any) -> str:
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=True)
    except (TypeError, ValueError, RecursionError) as exc:
        raise ValueError(f"it is {kind_of(value)} that is not JSON") from exc
    return text


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


_TO: Mapping[ColumnType, Callable[[Any], Any]] = MappingProxyType(
    {
        "string": _text,
        "integer": _integer,
        "number": _number,
        "boolean": _boolean,
        "timestamp": _time,
        "json": _json,
        "embedding": vector,
    }
)

_FROM: Mapping[ColumnType, Callable[[Any], Any]] = MappingProxyType(
    {
        "string": str,
        "integer": int,
        "number": _finite,
        "boolean": bool,
        "timestamp": lambda value: (EPOCH + timedelta(microseconds=value)).isoformat(),
        "json": json.loads,
        "embedding": list,
    }
)
