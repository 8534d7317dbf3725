"""What a tool gave back, as the text that the model reads."""

from __future__ import annotations

from typing import Any

MAX_CHARS = 32_768
"""Of a result; the rest of a longer one is cut off, and the text says so."""


class ResultUnreadable(Exception):
    """The result has no JSON form."""


def as_text(value: Any, *, max_chars: int = MAX_CHARS) -> str:
    """A text as it is, anything else as compact JSON. Raises ResultUnreadable."""
    text = value if isinstance(value, str) else _json(value)
    text = text.encode(errors="replace").decode()
    if len(text) <= max_chars:
        return text
    return f"{text[:max_chars]}\n[cut: these are the first {max_chars} of {len(text)} characters]"


def _json(value: Any) -> str:
    from pydantic_core import PydanticSerializationError, to_json

    try:
        return to_json(value, inf_nan_mode="strings").decode()
    except (PydanticSerializationError, ValueError, RecursionError) as exc:
        raise ResultUnreadable(f"its result, of the type {type(value).__name__}, has no JSON form") from exc
