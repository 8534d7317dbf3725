"""Operations on values of unknown size: each counts its work before doing it.

Flow authors and callers both choose what expressions, templates and placeholders meet. A `Meter` holds the
units of work that one evaluation may still do; every operation here takes its share first, so a hostile
value costs an error and never memory or time. One unit is about a tenth of a microsecond.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard, cast

from agentflow.errors import LimitExceeded
from agentflow.types import is_array, is_object, kind_of

MAX_TEXT = 1_048_576
"""Characters of any text that is built here: 1 MiB of ASCII."""
MAX_ITEMS = 100_000
"""Elements of any array that is built here."""
MAX_BITS = 4_096
"""Size of any integer that is built here: about 1,200 decimal digits."""
MAX_DIGITS = 1_300
"""Length of a text that may be read as a number."""

_NESTED = frozenset({list, tuple, dict})
_WEIGHTLESS = frozenset({int, float, bool, type(None)})
_FLAT = _WEIGHTLESS | {str}


class Meter:
    """The work that is left for one evaluation."""

    __slots__ = ("left",)

    def __init__(self, units: int) -> None:
        self.left = units

    def spend(self, units: int) -> None:
        """Raises LimitExceeded when the work is used up."""
        self.left -= units
        if self.left < 0:
            raise LimitExceeded("it does more work than one evaluation may do")

    def weigh(self, value: Any) -> None:
        """Take as much as it costs to visit every part of a value, shared parts as often as they occur."""
        self.spend(1)
        pending: list[Any] = [value]
        while pending:
            inner = pending.pop()
            kind = cast(type[Any], type(inner))
            if kind is str:
                self.spend(len(inner) >> 3)
            elif kind is dict or (kind not in _NESTED and is_object(inner)):
                self.spend(8 + 6 * len(inner))
                pending += inner
                pending += [child for child in inner.values() if type(child) not in _WEIGHTLESS]
            elif is_array(inner):
                self.spend(2 + len(inner))
                pending += [child for child in inner if type(child) not in _WEIGHTLESS]


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, (int, float))


def _small(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise LimitExceeded(f"an integer may have at most {MAX_BITS} bits")
    return value


def add(meter: Meter, left: Any, right: Any) -> Any:
    """Numbers are added; texts and arrays are joined."""
    if _is_number(left) and _is_number(right):
        return _small(left + right)
    if isinstance(left, str) and isinstance(right, str):
        fit_text(meter, len(left) + len(right))
        return left + right
    if (isinstance(left, list) and isinstance(right, list)) or (isinstance(left, tuple) and isinstance(right, tuple)):
        fit_items(meter, len(cast(list[Any], left)) + len(cast(list[Any], right)))
        return cast(list[Any], left) + cast(list[Any], right)
    raise TypeError(f"{kind_of(left)} and {kind_of(right)} cannot be added")


def multiply(meter: Meter, left: Any, right: Any) -> Any:
    """Numbers are multiplied; a text or an array is repeated."""
    if _is_number(left) and _is_number(right):
        if isinstance(left, float) or isinstance(right, float):
            return left * right
        if left.bit_length() + right.bit_length() > MAX_BITS:
            raise LimitExceeded(f"an integer may have at most {MAX_BITS} bits")
        return left * right
    if isinstance(right, (str, list, tuple)):
        left, right = cast(Any, right), left
    if isinstance(right, int) and isinstance(left, (str, list, tuple)):
        size = len(cast(str, left)) * max(right, 0)
        fit_text(meter, size) if isinstance(left, str) else fit_items(meter, size)
        return cast(Any, left) * right
    raise TypeError(f"{kind_of(left)} and {kind_of(right)} cannot be multiplied")


def arithmetic(verb: str, apply: Callable[[Any, Any], Any]) -> Callable[[Meter, Any, Any], Any]:
    """An operator that is defined on numbers alone; `verb` completes "cannot be ..."."""

    def operation(meter: Meter, left: Any, right: Any) -> Any:
        if not (_is_number(left) and _is_number(right)):
            raise TypeError(f"{kind_of(left)} and {kind_of(right)} cannot be {verb}")
        if isinstance(left, int) and isinstance(right, int):
            _small(left)
            _small(right)
        return _small(apply(left, right))

    return operation


def compared(meter: Meter, left: Any, right: Any) -> None:
    """Take the cost of comparing two values: only two nested ones can be expensive."""
    if type(left) in _NESTED and type(right) in _NESTED:
        meter.weigh(left)
        meter.weigh(right)


def contains(meter: Meter, member: Any, container: Any) -> bool:
    """Python's `in`, for texts, arrays and objects (by key)."""
    if isinstance(container, str):
        if not isinstance(member, str):
            raise TypeError(f"{kind_of(member)} cannot be in a string")
        meter.spend(1 + (len(container) >> 6))
        return member in container
    if is_array(container):
        if type(member) in _FLAT:
            meter.spend(1 + (len(container) >> 2))
        else:
            meter.weigh(member)
            meter.weigh(container)
        return member in container
    if is_object(container):
        return object_key(member) in container
    raise TypeError(f"nothing can be in {kind_of(container)}")


def item(value: Any, key: Any) -> Any:
    """`value[key]` for texts, arrays and objects. Raises LookupError in plain words."""
    if is_object(value):
        try:
            return value[object_key(key)]
        except KeyError:
            raise LookupError(f"the object has no key {shown(key)}") from None
    if isinstance(value, str) or is_array(value):
        if not isinstance(key, int):
            raise TypeError(f"{kind_of(value)} takes a position, not {kind_of(key)}")
        try:
            return value[key]
        except IndexError:
            raise LookupError(f"position {key} is outside {kind_of(value)} of length {len(value)}") from None
    raise TypeError(f"{kind_of(value)} has no parts to look up {shown(key)} in")


def part(meter: Meter, value: Any, span: slice[Any, Any, Any]) -> Any:
    """`value[start:stop:step]` for texts and arrays."""
    if not (isinstance(value, str) or is_array(value)):
        raise TypeError(f"{kind_of(value)} cannot be sliced")
    size = len(range(*span.indices(len(value))))
    fit_text(meter, size) if isinstance(value, str) else fit_items(meter, size)
    return value[span]


def text(meter: Meter, value: Any) -> str:
    """Python's `str()`."""
    if isinstance(value, str):
        return value
    if type(value) not in _FLAT:
        meter.weigh(value)
    result = str(value)
    if len(result) > MAX_TEXT:
        raise LimitExceeded(f"a text may have at most {MAX_TEXT} characters")
    return result


def integer(meter: Meter, value: Any) -> int:
    """Python's `int()` of a number or of decimal digits."""
    return _small(_converted(int, value))


def real(meter: Meter, value: Any) -> float:
    """Python's `float()` of a number or of a decimal text."""
    return _converted(float, value)


def absolute(meter: Meter, value: Any) -> int | float:
    return abs(number(value))


def negative(meter: Meter, value: Any) -> int | float:
    return -number(value)


def length(meter: Meter, value: Any) -> int:
    if isinstance(value, str) or is_array(value) or is_object(value):
        return len(value)
    raise TypeError(f"{kind_of(value)} has no length")


def largest(meter: Meter, values: Any) -> Any:
    """Python's `max()` of an array, a text or an object's keys."""
    return _extreme(meter, values, max)


def smallest(meter: Meter, values: Any) -> Any:
    """Python's `min()` of an array, a text or an object's keys."""
    return _extreme(meter, values, min)


def _extreme(meter: Meter, values: Any, choose: Callable[[Any], Any]) -> Any:
    if length(meter, values) == 0:
        raise ValueError(f"{kind_of(values)} without elements has no largest or smallest one")
    meter.weigh(values)
    try:
        return choose(values)
    except TypeError:
        raise TypeError("the elements have no common order") from None


def number(value: Any) -> int | float:
    """The value itself, when it is a number or a boolean."""
    if not _is_number(value):
        raise TypeError(f"{kind_of(value)} is not a number")
    return value


def fit_text(meter: Meter, size: int) -> None:
    """Take the cost of building a text of that many characters."""
    if size > MAX_TEXT:
        raise LimitExceeded(f"a text may have at most {MAX_TEXT} characters")
    meter.spend(1 + (size >> 3))


def fit_items(meter: Meter, size: int) -> None:
    """Take the cost of building an array of that many elements."""
    if size > MAX_ITEMS:
        raise LimitExceeded(f"an array may have at most {MAX_ITEMS} elements")
    meter.spend(1 + size)


def shown(value: Any) -> str:
    """A short form of a value for a message."""
    short = kind_of(value)
    if type(value) in _FLAT and not (isinstance(value, int) and value.bit_length() > MAX_BITS):
        short = repr(value[:60]) if isinstance(value, str) else repr(value)
    return short if len(short) <= 60 else short[:57] + "..."


def object_key(key: Any) -> Any:
    """The key itself, when it can be the key of an object."""
    if type(key) not in _FLAT:
        raise TypeError(f"{kind_of(key)} cannot be the key of an object")
    return key


def _converted(kind: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, str) and len(value) > MAX_DIGITS:
        raise LimitExceeded(f"a text of {len(value)} characters is too long to be a number")
    if not (isinstance(value, str) or _is_number(value)):
        raise TypeError(f"{kind_of(value)} cannot become a number")
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"{kind_of(value)} that is no {kind.__name__} cannot become one") from None
