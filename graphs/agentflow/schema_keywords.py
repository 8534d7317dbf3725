"""What each draft-07 keyword demands of a value, as functions that find the first problem.

A keyword's builder takes the keyword's value and returns a `Check`; it raises SchemaInvalid when that value
has the wrong form. Keywords that hold schemas are in `schemas`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from fractions import Fraction
from math import isfinite
from typing import Any, TypeGuard, cast

from agentflow import bounded
from agentflow.bounded import Meter
from agentflow.errors import SchemaInvalid
from agentflow.patterns import compile_pattern
from agentflow.types import kind_of

_MAX_CONSTANTS = 1_000_000


class Problem:
    """Why a value does not fit; `path` leads to it, last step first."""

    __slots__ = ("path", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.path: list[str | int] = []

    def under(self, step: str | int) -> Problem:
        self.path.append(step)
        return self

    def __str__(self) -> str:
        where = "$"
        for step in reversed(self.path):
            plain = isinstance(step, str) and step.isidentifier()
            where += f".{step}" if plain else f"[{bounded.shown(step)}]"
        return f"{where} {self.text}"


Check = Callable[[Any, Meter], Problem | None]


def is_list(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def is_dict(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return is_number(value) and (isinstance(value, int) or value.is_integer())


_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "array": is_list,
    "boolean": lambda value: isinstance(value, bool),
    "integer": _is_integer,
    "null": lambda value: value is None,
    "number": is_number,
    "object": is_dict,
    "string": lambda value: isinstance(value, str),
}


def canonical(value: Any, meter: Meter) -> Hashable:
    """Equal for values that are equal as JSON: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, bool):
        return (bool, value)
    if value is None or isinstance(value, (str, int, float)):
        return value
    meter.spend(20)
    if is_list(value):
        meter.spend(2 * len(value))
        return (list, tuple([canonical(item, meter) for item in value]))
    if is_dict(value):
        meter.spend(4 * len(value))
        return (dict, frozenset([(key, canonical(item, meter)) for key, item in value.items()]))
    return (object, id(cast(object, value)))


def _type(wanted: Any) -> Check:
    names = cast(list[Any], wanted if isinstance(wanted, list) else [wanted])
    if not names or not all(isinstance(name, str) and name in _TYPES for name in names):
        raise SchemaInvalid(f"type is one of {', '.join(_TYPES)}, or an array of these")
    if len(set(names)) < len(names):
        raise SchemaInvalid("type names the same type twice")
    tests = [_TYPES[name] for name in names]
    text = "not " + " or ".join(f"an {name}" if name[0] in "aeio" else f"a {name}" for name in names)
    text = text.replace("a null", "null")

    def check(value: Any, meter: Meter) -> Problem | None:
        if any(test(value) for test in tests):
            return None
        return Problem(f"is {kind_of(value)}, {text}")

    return check


def _enum(values: Any) -> Check:
    if not is_list(values):
        raise SchemaInvalid("enum is an array of values")
    meter = Meter(_MAX_CONSTANTS)
    allowed = frozenset([canonical(value, meter) for value in values])
    named = ", ".join(bounded.shown(value) for value in values[:8]) + (", ..." if len(values) > 8 else "")

    def check(value: Any, meter: Meter) -> Problem | None:
        return None if canonical(value, meter) in allowed else Problem(f"is not one of {named or 'no values'}")

    return check


def _const(wanted: Any) -> Check:
    only = canonical(wanted, Meter(_MAX_CONSTANTS))

    def check(value: Any, meter: Meter) -> Problem | None:
        return None if canonical(value, meter) == only else Problem(f"is not {bounded.shown(wanted)}")

    return check


def _bound(fits: Callable[[Any, Any], bool], reason: str) -> Callable[[Any], Check]:
    def build(limit: Any) -> Check:
        if not is_number(limit):
            raise SchemaInvalid("the limit is a number")

        def check(value: Any, meter: Meter) -> Problem | None:
            if not is_number(value) or fits(value, limit):
                return None
            return Problem(f"is {bounded.shown(value)}, {reason} {limit}")

        return check

    return build


def _is_finite(number: int | float) -> bool:
    return isinstance(number, int) or isfinite(number)


def _fraction(number: int | float) -> Fraction:
    """A float means its decimal digits, so that 19.99 is a multiple of 0.01."""
    return Fraction(number if isinstance(number, int) else repr(number))


def _multiple_of(step: Any) -> Check:
    if not is_number(step) or not _is_finite(step) or step <= 0:
        raise SchemaInvalid("multipleOf is a number above 0")
    divisor = _fraction(step)

    def check(value: Any, meter: Meter) -> Problem | None:
        if not is_number(value):
            return None
        if _is_finite(value) and (_fraction(value) / divisor).denominator == 1:
            return None
        return Problem(f"is {bounded.shown(value)}, not a multiple of {step}")

    return check


def _size(kind: type, fits: Callable[[int, int], bool], reason: str) -> Callable[[Any], Check]:
    def build(limit: Any) -> Check:
        if not _is_integer(limit) or limit < 0:
            raise SchemaInvalid("the limit is a whole number of at least 0")
        count = int(limit)

        def check(value: Any, meter: Meter) -> Problem | None:
            if not isinstance(value, kind) or fits(len(cast(str, value)), count):
                return None
            return Problem(f"has {reason.format(len(cast(str, value)), count)}")

        return check

    return build


def _pattern(source: Any) -> Check:
    if not isinstance(source, str):
        raise SchemaInvalid("pattern is a string")
    pattern = compile_pattern(source)

    def check(value: Any, meter: Meter) -> Problem | None:
        if not isinstance(value, str) or pattern.found_in(value, meter):
            return None
        return Problem(f"does not match the pattern {bounded.shown(source)}")

    return check


def _unique_items(wanted: Any) -> Check | None:
    if not isinstance(wanted, bool):
        raise SchemaInvalid("uniqueItems is true or false")

    def check(value: Any, meter: Meter) -> Problem | None:
        if not is_list(value):
            return None
        first: dict[Hashable, int] = {}
        for index, item in enumerate(value):
            earlier = first.setdefault(canonical(item, meter), index)
            if earlier != index:
                return Problem(f"has the same element at positions {earlier} and {index}")
        return None

    return check if wanted else None


def names(value: Any, keyword: str) -> list[str]:
    """An array of different strings. Raises SchemaInvalid."""
    if not is_list(value) or not all(isinstance(name, str) for name in value):
        raise SchemaInvalid(f"{keyword} is an array of names")
    if len(set(value)) < len(value):
        raise SchemaInvalid(f"{keyword} has the same name twice")
    return value


def missing(value: dict[str, Any], wanted: list[str]) -> Problem | None:
    for name in wanted:
        if name not in value:
            return Problem(f"lacks the required key {bounded.shown(name)}")
    return None


def _required(wanted: Any) -> Check:
    wanted = names(wanted, "required")
    return lambda value, meter: missing(value, wanted) if is_dict(value) else None


def _string(value: Any) -> None:
    if not isinstance(value, str):
        raise SchemaInvalid("the value is a string")


def _flag(value: Any) -> None:
    if not isinstance(value, bool):
        raise SchemaInvalid("the value is true or false")


def _examples(value: Any) -> None:
    if not isinstance(value, list):
        raise SchemaInvalid("examples is an array")


ASSERTIONS: Mapping[str, Callable[[Any], Check | None]] = {
    "type": _type,
    "enum": _enum,
    "const": _const,
    "required": _required,
    "maximum": _bound(lambda value, limit: value <= limit, "more than the maximum"),
    "exclusiveMaximum": _bound(lambda value, limit: value < limit, "not less than"),
    "minimum": _bound(lambda value, limit: value >= limit, "less than the minimum"),
    "exclusiveMinimum": _bound(lambda value, limit: value > limit, "not more than"),
    "multipleOf": _multiple_of,
    "maxLength": _size(str, lambda size, limit: size <= limit, "{} characters, more than {}"),
    "minLength": _size(str, lambda size, limit: size >= limit, "{} characters, fewer than {}"),
    "maxItems": _size(list, lambda size, limit: size <= limit, "{} elements, more than {}"),
    "minItems": _size(list, lambda size, limit: size >= limit, "{} elements, fewer than {}"),
    "maxProperties": _size(dict, lambda size, limit: size <= limit, "{} keys, more than {}"),
    "minProperties": _size(dict, lambda size, limit: size >= limit, "{} keys, fewer than {}"),
    "pattern": _pattern,
    "uniqueItems": _unique_items,
    "format": _string,
    "title": _string,
    "description": _string,
    "$comment": _string,
    "$id": _string,
    "$schema": _string,
    "contentEncoding": _string,
    "contentMediaType": _string,
    "examples": _examples,
    "readOnly": _flag,
    "writeOnly": _flag,
}
"""Keywords whose value holds no schema; those from `format` on only describe."""

NOT_DRAFT_7: Mapping[str, str] = {
    "$anchor": "refer to #/definitions/... instead",
    "$dynamicRef": "use $ref",
    "$recursiveRef": "use $ref",
    "dependentRequired": "use dependencies",
    "dependentSchemas": "use dependencies",
    "maxContains": "it has no replacement",
    "minContains": "it has no replacement",
    "prefixItems": "use items with an array",
    "unevaluatedItems": "use additionalItems",
    "unevaluatedProperties": "use additionalProperties",
}
"""Constraints of later drafts: a draft-07 validator would silently ignore them."""
