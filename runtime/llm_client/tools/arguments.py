"""The arguments text that a model wrote, read strictly: it is data from outside, and of any size."""

from __future__ import annotations

import json
from typing import Any, NoReturn, cast

from agentflow.scalars import finite, integer

MAX_CHARS = 65_536
MAX_DEPTH = 32


class ArgumentsUnreadable(Exception):
    """Says in a few words what the text is not."""


def read_arguments(text: str) -> dict[str, Any]:
    """A JSON object without NaN, endless numbers, lone surrogates or deep nesting; no text at all is an empty one.

    Raises ArgumentsUnreadable.
    """
    if len(text) > MAX_CHARS:
        raise ArgumentsUnreadable(f"they have {len(text)} characters, and {MAX_CHARS} are allowed")
    if not text.strip():
        return {}
    try:
        value = _DECODER.decode(text)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as exc:
        raise ArgumentsUnreadable(_TOO_DEEP) from exc
    except json.JSONDecodeError as exc:
        raise ArgumentsUnreadable(f"they are not JSON: {exc.msg} at character {exc.pos}") from exc
    except ValueError as exc:
        raise ArgumentsUnreadable("they hold a number or a text that JSON cannot carry") from exc
    if not isinstance(value, dict):
        raise ArgumentsUnreadable("they are not a JSON object")
    if _depth(value) > MAX_DEPTH:
        raise ArgumentsUnreadable(_TOO_DEEP)
    return cast("dict[str, Any]", value)


_TOO_DEEP = f"they are nested deeper than {MAX_DEPTH} levels"


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(parse_int=integer, parse_float=finite, parse_constant=_refuse)


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level:
        depth += 1
        level = [part for each in level for part in _parts(each) if isinstance(part, dict | list)]
    return depth


def _parts(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value
