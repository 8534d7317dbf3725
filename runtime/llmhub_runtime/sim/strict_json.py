"""JSON from outside, read strictly."""

from __future__ import annotations

import json
from typing import Any


def parse_json(body: bytes) -> Any:
    """Without NaN, lone surrogates or endless nesting. Raises ValueError."""
    try:
        value = json.loads(body, parse_constant=_refuse)
        if b"\\ud" in body.lower():
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as exc:
        raise ValueError("it is nested too deeply") from exc
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
