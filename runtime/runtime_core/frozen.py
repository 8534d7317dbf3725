"""Frozen records on the way of every call: their values were checked where they came in, and are not again."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar

from pydantic import BaseModel

Record = TypeVar("Record", bound=BaseModel)

_put = object.__setattr__


def changed(record: Record, /, **values: Any) -> Record:
    """`record.model_copy(update=values)` in half of its time. The values are not checked."""
    return _record(type(record), {**vars(record), **values})


def unchecked(model: type[Record], /, **values: Any) -> Record:
    """`model(**values)` in half of its time, with every field given, for values that are known to fit."""
    return _record(model, values)


def _record(model: type[Record], values: dict[str, Any]) -> Record:
    record = object.__new__(model)
    _put(record, "__dict__", values)
    _put(record, "__pydantic_fields_set__", _fields(model))
    _put(record, "__pydantic_extra__", None)
    _put(record, "__pydantic_private__", None)
    return record


@lru_cache(maxsize=64)
def _fields(model: type[BaseModel]) -> set[str]:
    """One set for all records of a model: nobody changes what is frozen, and pydantic copies the set with a record."""
    return set(model.model_fields)
