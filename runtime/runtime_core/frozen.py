"""Frozen records, changed and made again on the way of every call."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel

Record = TypeVar("Record", bound=BaseModel)


def changed(record: Record, **values: Any) -> Record:
    """`record.model_copy(update=values)` in a third of its time. The values are not checked."""
    copy = record.__copy__()
    vars(copy).update(values)
    return copy


def made(kind: type[Record], values: dict[str, Any]) -> Record:
    """A record of what was checked before: every field of it, none of which is private. Takes the dict.

    `model_construct` asks every field for its aliases and defaults, which takes ten times as long.
    """
    record = kind.__new__(kind)
    for name, value in (
        ("__dict__", values),
        ("__pydantic_fields_set__", set(values)),
        ("__pydantic_extra__", None),
        ("__pydantic_private__", None),
    ):
        object.__setattr__(record, name, value)
    return record
