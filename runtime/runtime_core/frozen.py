"""Frozen records, changed on the way of every call."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel

Record = TypeVar("Record", bound=BaseModel)


def changed(record: Record, **values: Any) -> Record:
    """`record.model_copy(update=values)` in a third of its time. The values are not checked."""
    copy = record.__copy__()
    vars(copy).update(values)
    return copy
