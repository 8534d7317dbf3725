"""The filters and tests that a template may use: Jinja's, with their work counted and their results bounded.

Each filter takes the render's Meter first. What differs from Jinja: filters that give iterators give arrays,
`sum` adds numbers only, and `tojson` writes plain JSON without HTML escapes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard, cast

from jinja2 import Undefined, filters
from jinja2.runtime import StrictUndefined
from jinja2.utils import missing

from agentflow import bounded
from agentflow.bounded import Meter
from agentflow.errors import LimitExceeded
from agentflow.types import is_array, is_object, kind_of

MAX_INDENT = 64
"""Characters that `indent` may add to a line."""
MAX_JSON_INDENT = 8
"""Characters that `tojson` may add to a line for each level."""
MAX_PRECISION = 15
"""Decimal places of `round`."""


class Missing(StrictUndefined):
    """A value that is not there; every use but `default` and `is defined` fails and says which one."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        if self._undefined_hint:
            return self._undefined_hint
        if self._undefined_obj is missing:
            return f"'{self._undefined_name}' has no value"
        part = "key" if is_object(self._undefined_obj) else "element"
        return f"{kind_of(self._undefined_obj)} has no {part} {bounded.shown(self._undefined_name)}"


def lookup(value: Any, key: Any) -> Any:
    """A part of a value by key or position, never an attribute; Missing when it is not there."""
    if isinstance(value, Undefined):
        str(value)
    if is_object(value):
        if isinstance(key, (str, int, float)) and key in value:
            return value[key]
    elif isinstance(key, int) and _is_row(value) and -len(value) <= key < len(value):
        return value[key]
    return Missing(obj=value, name=cast(str, key))


def _is_row(value: Any) -> TypeGuard[str | list[Any] | tuple[Any, ...]]:
    return isinstance(value, str) or is_array(value)


def elements(meter: Meter, value: Any) -> list[Any]:
    """What a loop over the value visits: characters, elements or keys."""
    bounded.fit_items(meter, bounded.length(meter, value))
    return list(value)


def _default(meter: Meter, value: Any, default_value: Any = "", boolean: bool = False) -> Any:
    return default_value if isinstance(value, Undefined) or (boolean and not value) else value


def _path(attribute: Any) -> list[str | int]:
    if isinstance(attribute, int):
        return [attribute]
    if not isinstance(attribute, str):
        raise TypeError("attribute is a name or a position")
    return [int(step) if step.isdigit() and len(step) < 10 else step for step in attribute.split(".")]


def _picked(meter: Meter, items: list[Any], attribute: Any) -> list[Any]:
    if attribute is None:
        return items
    path = _path(attribute)
    meter.spend(6 * len(items) * len(path))
    picked: list[Any] = []
    for item in items:
        for step in path:
            item = lookup(item, step)
        picked.append(item)
    return picked


def _folded(keys: list[Any], case_sensitive: bool) -> list[Any]:
    return keys if case_sensitive else [key.lower() if isinstance(key, str) else key for key in keys]


def _join(meter: Meter, value: Any, d: Any = "", attribute: Any = None) -> str:
    texts = [bounded.text(meter, item) for item in _picked(meter, elements(meter, value), attribute)]
    separator = bounded.text(meter, d)
    bounded.fit_text(meter, sum(map(len, texts)) + len(separator) * len(texts))
    return separator.join(texts)


def _on_text(change: Callable[[str], Any], units: float = 0.1) -> Callable[[Meter, Any], Any]:
    """A change of a text that costs so many units for each character."""

    def apply(meter: Meter, value: Any) -> Any:
        text = bounded.text(meter, value)
        meter.spend(1 + int(len(text) * units))
        return change(text)

    return apply


def _trim(meter: Meter, value: Any, chars: str | None = None) -> str:
    return bounded.text(meter, value).strip(chars)


def _first(meter: Meter, value: Any) -> Any:
    if bounded.length(meter, value) == 0:
        return Missing(hint=f"{kind_of(value)} without elements has no first one")
    return next(iter(value))


def _last(meter: Meter, value: Any) -> Any:
    if bounded.length(meter, value) == 0:
        return Missing(hint=f"{kind_of(value)} without elements has no last one")
    return next(iter(reversed(value)))


def _round(meter: Meter, value: Any, precision: int = 0, method: Any = "common") -> Any:
    if abs(bounded.number(precision)) > MAX_PRECISION:
        raise LimitExceeded(f"round gives at most {MAX_PRECISION} decimal places")
    return filters.do_round(bounded.number(value), precision, method)


def _int(meter: Meter, value: Any, default: Any = 0, base: int = 10) -> Any:
    if isinstance(value, str) and len(value) > bounded.MAX_DIGITS:
        raise LimitExceeded(f"a text of {len(value)} characters is too long to be a number")
    return filters.do_int(value, default, base)


def _float(meter: Meter, value: Any, default: Any = 0.0) -> Any:
    if isinstance(value, str) and len(value) > bounded.MAX_DIGITS:
        raise LimitExceeded(f"a text of {len(value)} characters is too long to be a number")
    return filters.do_float(value, default)


def _tojson(meter: Meter, value: Any, indent: int | None = None) -> str:
    meter.weigh(value)
    encoder = json.JSONEncoder(ensure_ascii=False, indent=indent, sort_keys=True)
    if indent is None:
        text = encoder.encode(value)
        bounded.fit_text(meter, len(text))
        return text
    if not 0 <= indent <= MAX_JSON_INDENT:
        raise LimitExceeded(f"tojson indents by at most {MAX_JSON_INDENT}")
    pieces: list[str] = []
    for piece in encoder.iterencode(value):
        meter.spend(8)
        bounded.fit_text(meter, len(piece))
        pieces.append(piece)
    return "".join(pieces)


def _replace(meter: Meter, value: Any, old: Any, new: Any, count: int | None = None) -> str:
    text, old, new = (bounded.text(meter, part) for part in (value, old, new))
    found = text.count(old) if count is None or count < 0 else min(text.count(old), count)
    bounded.fit_text(meter, len(text) + found * max(len(new) - len(old), 0))
    return text.replace(old, new, found)


def _truncate(
    meter: Meter, value: Any, length: int = 255, killwords: bool = False, end: str = "...", leeway: int = 5
) -> Any:
    if length < len(end):
        raise ValueError(f"truncate needs a length of at least {len(end)}, the length of {end!r}")
    if bounded.length(meter, value) <= length + leeway:
        return value
    if not isinstance(value, str):
        raise TypeError(f"{kind_of(value)} cannot be truncated")
    kept = value[: length - len(end)]
    return (kept if killwords else kept.rsplit(" ", 1)[0]) + end


def _sort(
    meter: Meter, value: Any, reverse: bool = False, case_sensitive: bool = False, attribute: Any = None
) -> list[Any]:
    items = elements(meter, value)
    names: list[Any] = attribute.split(",") if isinstance(attribute, str) else [attribute]
    columns = [_folded(_picked(meter, items, name), case_sensitive) for name in names]
    meter.weigh(columns)
    meter.spend(len(items) * len(columns) * len(items).bit_length() >> 3)
    keys = list(zip(*columns, strict=True))
    try:
        order = sorted(range(len(items)), key=keys.__getitem__, reverse=reverse)
    except TypeError:
        raise TypeError("the elements have no common order") from None
    return [items[position] for position in order]


def _unique(meter: Meter, value: Any, case_sensitive: bool = False, attribute: Any = None) -> list[Any]:
    items = elements(meter, value)
    keys = _folded(_picked(meter, items, attribute), case_sensitive)
    seen: set[Any] = set()
    kept: list[Any] = []
    for item, key in zip(items, keys, strict=True):
        if bounded.object_key(key) not in seen:
            seen.add(key)
            kept.append(item)
    return kept


def _sum(meter: Meter, value: Any, attribute: Any = None, start: Any = 0) -> Any:
    total = bounded.number(start)
    items = _picked(meter, elements(meter, value), attribute)
    meter.spend(3 * len(items))
    for item in items:
        total = bounded.add(meter, total, bounded.number(item))
    return total


def _extreme(choose: Callable[..., Any], which: str) -> Callable[..., Any]:
    def apply(meter: Meter, value: Any, case_sensitive: bool = False, attribute: Any = None) -> Any:
        items = elements(meter, value)
        if not items:
            return Missing(hint=f"{kind_of(value)} without elements has no {which} one")
        keys = _folded(_picked(meter, items, attribute), case_sensitive)
        meter.weigh(keys)
        try:
            return items[choose(range(len(items)), key=keys.__getitem__)]
        except TypeError:
            raise TypeError("the elements have no common order") from None

    return apply


def _items(meter: Meter, value: Any) -> list[Any]:
    if not is_object(value):
        raise TypeError(f"items needs an object, not {kind_of(value)}")
    bounded.fit_items(meter, len(value))
    return list(value.items())


def _indent(meter: Meter, value: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    text = bounded.text(meter, value)
    step = len(width) if isinstance(width, str) else width
    if not 0 <= step <= MAX_INDENT:
        raise LimitExceeded(f"indent adds at most {MAX_INDENT} characters to a line")
    bounded.fit_text(meter, len(text) + step * (len(_LINE_END.findall(text)) + 1))
    return filters.do_indent(text, width, first, blank)


_LINE_END = re.compile(r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


def _reverse(meter: Meter, value: Any) -> Any:
    if isinstance(value, str):
        bounded.fit_text(meter, len(value))
        return value[::-1]
    return elements(meter, value)[::-1]


FILTERS: Mapping[str, Callable[..., Any]] = {
    "abs": bounded.absolute,
    "capitalize": _on_text(str.capitalize),
    "count": bounded.length,
    "d": _default,
    "default": _default,
    "first": _first,
    "float": _float,
    "indent": _indent,
    "int": _int,
    "items": _items,
    "join": _join,
    "last": _last,
    "length": bounded.length,
    "list": elements,
    "lower": _on_text(str.lower),
    "max": _extreme(max, "largest"),
    "min": _extreme(min, "smallest"),
    "replace": _replace,
    "reverse": _reverse,
    "round": _round,
    "sort": _sort,
    "string": bounded.text,
    "sum": _sum,
    "title": _on_text(filters.do_title, 2),
    "tojson": _tojson,
    "trim": _trim,
    "truncate": _truncate,
    "unique": _unique,
    "upper": _on_text(str.upper),
    "wordcount": _on_text(filters.do_wordcount, 1),
}

ACCEPTS_MISSING = frozenset({"default", "d"})


def _remainder(value: Any, divisor: Any) -> int | float:
    if isinstance(value, Undefined):
        str(value)
    return bounded.number(value) % bounded.number(divisor)


def _is(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


def _same(constant: Any) -> Callable[[Any], bool]:
    return lambda value: value is constant


def _has_elements(value: Any) -> bool:
    return _is_row(value) or is_object(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_defined(value: Any) -> bool:
    return not isinstance(value, Undefined)


def _is_divisible(value: Any, num: Any) -> bool:
    return _remainder(value, num) == 0


def _is_even(value: Any) -> bool:
    return _remainder(value, 2) == 0


def _is_odd(value: Any) -> bool:
    return _remainder(value, 2) == 1


TESTS: Mapping[str, Callable[..., bool]] = {
    "boolean": _is(bool),
    "defined": _is_defined,
    "divisibleby": _is_divisible,
    "even": _is_even,
    "false": _same(False),
    "float": _is(float),
    "integer": _is_integer,
    "iterable": _has_elements,
    "mapping": _is(Mapping),
    "none": _same(None),
    "number": _is(int, float),
    "odd": _is_odd,
    "sequence": _has_elements,
    "string": _is(str),
    "true": _same(True),
    "undefined": _is(Undefined),
}
