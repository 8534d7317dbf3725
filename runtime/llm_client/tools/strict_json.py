"""JSON that a model wrote, read strictly: it is data from outside, and of any size."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from agentflow.scalars import finite, integer

MAX_ARGUMENTS = 65_536
"""Characters of the arguments of one call."""
MAX_DEPTH = 32


class Unreadable(Exception):
    """Says in a few words what the text is not."""


def read_arguments(text: str) -> dict[str, Any]:
    """A JSON object; no text at all is an empty one. Raises Unreadable."""
    if not text.strip():
        return {}
    value = read_value(text, max_chars=MAX_ARGUMENTS)
    if not isinstance(value, dict):
        raise Unreadable("this is not a JSON object")
    return value


def read_value(text: str, *, max_chars: int) -> Any:
    """A JSON value without NaN, endless numbers, lone surrogates or deep nesting. Raises Unreadable."""
    if len(text) > max_chars:
        raise Unreadable(f"this has {len(text)} characters, and {max_chars} are allowed")
    try:
        value = _DECODER.decode(text)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as exc:
        raise Unreadable(_TOO_DEEP) from exc
    except json.JSONDecodeError as exc:
        raise Unreadable(f"this is not JSON: {exc.msg} at character {exc.pos}") from exc
    except ValueError as exc:
        raise Unreadable("this holds a number or a text that JSON cannot carry") from exc
    if _depth(value) > MAX_DEPTH:
        raise Unreadable(_TOO_DEEP)
    return value


_TOO_DEEP = f"this is nested deeper than {MAX_DEPTH} levels"


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(parse_int=integer, parse_float=finite, parse_constant=_refuse)


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [part for each in level for part in (each.values() if isinstance(each, dict) else each)]
    return depth
