"""How one JSON value differs from another, as lines that a person can act on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, cast

MAX_LINES = 20
MAX_SHOWN = 200
"""Characters of a value in a line."""


def differences(expected: Any, actual: Any, at: str) -> list[str]:
    """Every place where `actual` is not what was expected, under its path; nothing when both are equal.

    Equal numbers are equal, whole or not; true is not 1.
    """
    lines = list(islice(_compare(expected, actual, at), MAX_LINES + 1))
    return [*lines[:MAX_LINES], "... and more"] if len(lines) > MAX_LINES else lines


def _compare(expected: Any, actual: Any, at: str) -> Iterator[str]:
    if isinstance(expected, dict) and isinstance(actual, dict):
        yield from _members(cast("dict[str, Any]", expected), cast("dict[str, Any]", actual), at)
    elif isinstance(expected, list) and isinstance(actual, list):
        yield from _elements(cast("list[Any]", expected), cast("list[Any]", actual), at)
    elif expected != actual or isinstance(expected, bool) != isinstance(actual, bool):
        yield f"{at}: expected {_shown(expected)}, got {_shown(actual)}"


def _members(expected: Mapping[str, Any], actual: Mapping[str, Any], at: str) -> Iterator[str]:
    for key, value in expected.items():
        if key in actual:
            yield from _compare(value, actual[key], f"{at}.{key}")
        else:
            yield f"{at}.{key}: expected {_shown(value)}, got nothing"
    for key in actual:
        if key not in expected:
            yield f"{at}.{key}: expected nothing, got {_shown(actual[key])}"


def _elements(expected: list[Any], actual: list[Any], at: str) -> Iterator[str]:
    for index, (one, other) in enumerate(zip(expected, actual, strict=False)):
        yield from _compare(one, other, f"{at}[{index}]")
    if len(expected) != len(actual):
        yield f"{at}: expected {len(expected)} elements, got {len(actual)}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
