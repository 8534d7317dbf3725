"""What a plain YAML scalar means: the YAML 1.2 core schema, without infinities.

`on`, `yes`, `no` and dates are text; `010` is ten; `0o17` and `0x1F` are numbers.
"""

from __future__ import annotations

import math
import re

MAX_DIGITS = 64

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NUMERIC_START = frozenset("+-.0123456789")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_OTHER_BASE = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


class NumberError(ValueError):
    """A number that JSON cannot carry, or that is absurdly long."""


def resolve(text: str) -> str | int | float | bool | None:
    """The value of a plain scalar. Raises NumberError."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMERIC_START:
        return text
    if _INTEGER.fullmatch(text):
        return integer(text)
    if _FLOAT.fullmatch(text):
        return finite(text)
    if _OTHER_BASE.fullmatch(text):
        return int(_checked(text), base=0)
    if _NOT_FINITE.fullmatch(text):
        raise NumberError(f"{text} is not a number that JSON can carry")
    return text


def integer(text: str) -> int:
    """A decimal integer. Raises NumberError."""
    return int(_checked(text))


def finite(text: str) -> float:
    """A decimal number. Raises NumberError when it is beyond a 64-bit float."""
    value = float(text)
    if not math.isfinite(value):
        raise NumberError(f"{text[:20]} is too large a number")
    return value


def _checked(text: str) -> str:
    if len(text) > MAX_DIGITS:
        raise NumberError(f"a number of {len(text)} digits is too long")
    return text
