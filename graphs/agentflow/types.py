"""Port types: which may be wired to which, and what a value turns into on the way (IR.md Q14)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from math import isfinite
from typing import Any, TypeGuard
from typing import cast as typed

from agentflow.errors import CastError


class PortType(StrEnum):
    """The types of the flow language. `document` is text or markdown, `table` an array of row objects,
    `embedding` an array of numbers."""

    STRING = "string"
    NUMBER = "number"
    BOOLEAN = "boolean"
    OBJECT = "object"
    ARRAY = "array"
    DOCUMENT = "document"
    TABLE = "table"
    EMBEDDING = "embedding"


WIDENINGS: frozenset[tuple[PortType, PortType]] = frozenset(
    {
        (PortType.STRING, PortType.DOCUMENT),
        (PortType.DOCUMENT, PortType.STRING),
        (PortType.NUMBER, PortType.STRING),
        (PortType.BOOLEAN, PortType.STRING),
        (PortType.TABLE, PortType.OBJECT),
        (PortType.TABLE, PortType.ARRAY),
        (PortType.EMBEDDING, PortType.ARRAY),
    }
)
"""The legal wirings between different types. A type always fits itself."""


def compatible(source: PortType | None, target: PortType | None) -> bool:
    """Whether an edge may run from a `source` to a `target` port. None is untyped and fits everything."""
    return source is None or target is None or source == target or (source, target) in WIDENINGS


def cast(value: Any, source: PortType | None, target: PortType | None) -> Any:
    """The value that arrives at a `target` port.

    Numbers and booleans become Python's `str()` of them; a table becomes its only row. Between untyped or
    equal types every value passes as it is, and so does None, which an optional output may leave behind.
    Raises CastError when the types do not fit or the value is not what `source` promises.
    """
    if source is None or target is None or source == target:
        return value
    if not compatible(source, target):
        raise CastError(f"{_a(source)} cannot be wired to {_a(target)}", source=source.value, target=target.value)
    if value is None:
        return None
    problem = mismatch(value, source)
    if problem is not None:
        raise CastError(f"the value cannot become {_a(target)}: {problem}", source=source.value, target=target.value)
    if target is PortType.STRING and source in (PortType.NUMBER, PortType.BOOLEAN):
        return _as_text(value, source)
    if source is PortType.TABLE and target is PortType.OBJECT:
        return _only_row(value)
    return value


def mismatch(value: Any, port_type: PortType) -> str | None:
    """Why a JSON value is not of this type, in one sentence; None if it is."""
    return _CHECKS[port_type](value)


def kind_of(value: Any) -> str:
    """What a value is, with an article, for messages: `a string`, `an array`, `null`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, tuple):
        return "a tuple"
    return f"a Python {type(typed(object, value)).__name__}"


def is_array(value: Any) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    return isinstance(value, (list, tuple))


def is_object(value: Any) -> TypeGuard[Mapping[Any, Any]]:
    return type(value) is dict or isinstance(value, Mapping)


def _as_text(value: Any, source: PortType) -> str:
    try:
        return str(value)
    except ValueError as exc:
        raise CastError(
            "the number has too many digits to become a string", source=source.value, target="string"
        ) from exc


def _only_row(table: list[Any]) -> Any:
    if len(table) != 1:
        raise CastError(
            f"a table becomes an object only when it has exactly one row, and this one has {len(table)}",
            source="table",
            target="object",
        )
    return table[0]


def _a(port_type: PortType) -> str:
    article = "an" if port_type.value[0] in "aeo" else "a"
    return f"{article} {port_type.value}"


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) else f"it is {kind_of(value)}, not a string"


def _number(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"it is {kind_of(value)}, not a number"
    return None if isinstance(value, int) or isfinite(value) else f"it is {value}, which JSON does not have"


def _boolean(value: Any) -> str | None:
    return None if isinstance(value, bool) else f"it is {kind_of(value)}, not a boolean"


def _object(value: Any) -> str | None:
    return None if isinstance(value, dict) else f"it is {kind_of(value)}, not an object"


def _array(value: Any) -> str | None:
    return None if isinstance(value, list) else f"it is {kind_of(value)}, not an array"


def _table(value: Any) -> str | None:
    if not isinstance(value, list):
        return f"it is {kind_of(value)}, not a table (an array of row objects)"
    for index, row in enumerate(typed(list[Any], value)):
        if not isinstance(row, dict):
            return f"row {index} of the table is {kind_of(row)}, not an object"
    return None


def _embedding(value: Any) -> str | None:
    if not isinstance(value, list):
        return f"it is {kind_of(value)}, not an embedding (an array of numbers)"
    for index, item in enumerate(typed(list[Any], value)):
        if _number(item) is not None:
            return f"position {index} of the embedding is {kind_of(item)}, not a finite number"
    return None


_CHECKS: Mapping[PortType, Callable[[Any], str | None]] = {
    PortType.STRING: _text,
    PortType.DOCUMENT: _text,
    PortType.NUMBER: _number,
    PortType.BOOLEAN: _boolean,
    PortType.OBJECT: _object,
    PortType.ARRAY: _array,
    PortType.TABLE: _table,
    PortType.EMBEDDING: _embedding,
}
