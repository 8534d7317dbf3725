"""JSON as the predictor reads and writes it: strict, in UTF-8, of bounded depth.

Python's own parser takes NaN, lone surrogates and UTF-16, and recurses as deep as the text says.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson

_MARKS = b'"[]{}'
_NOT_MARKS = bytes(set(range(256)) - set(_MARKS))
_PIECE = 1 << 16  # marks looked at together: what fits into a processor's cache
_STRICT = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"))
_BRACES_AS_BRACKETS = bytes.maketrans(b"{}", b"[]")


def is_deeper(text: bytes, *, than: int) -> bool:
    """Whether arrays and objects nest more than `than` levels deep in JSON text. Linear, without recursion.

    For text that is not JSON, right up to the place where a parser would stop.
    """
    if text.count(b"[") + text.count(b"{") <= than:
        return False
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    marks = np.frombuffer(text.translate(_BRACES_AS_BRACKETS, _NOT_MARKS), dtype=np.uint8)
    depth, in_string = 0, np.False_
    for start in range(0, len(marks), _PIECE):
        piece = marks[start : start + _PIECE]
        inside = np.logical_xor.accumulate(piece == ord('"')) ^ in_string
        steps = (piece == ord("[")).view(np.int8) - (piece == ord("]")).view(np.int8)
        depths = np.cumsum(np.where(inside, 0, steps), dtype=np.int32) + depth
        if depths.max() > than:
            return True
        depth, in_string = int(depths[-1]), inside[-1]
    return False


def parse_document(text: bytes, *, max_depth: int) -> Any:
    """The value of strict JSON text. Raises ValueError with the reason."""
    if is_deeper(text, than=max_depth):
        raise ValueError(f"it nests more than {max_depth} levels deep")
    return orjson.loads(text)


def looseness(text: bytes) -> str | None:
    """Why text that Python takes for JSON is not JSON (NaN, 1e999, a lone surrogate, another encoding).

    None for strict JSON, and for text that Python's parser refuses too.
    """
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as strict:
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return None
        return str(strict)
    return None


def check_value(value: Any) -> bytes:
    """The JSON text of a value, which every JSON parser reads back. Raises ValueError with the reason."""
    try:
        text = _STRICT.encode(value).encode()
        # What json.dumps lets through: integers above 64 bits, more levels than a parser takes.
        orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    except UnicodeEncodeError as exc:
        raise ValueError("a text in it is not valid Unicode") from exc
    except RecursionError as exc:
        raise ValueError("it nests too deep or contains itself") from exc
    except (ValueError, TypeError) as exc:
        raise ValueError(str(exc)) from exc
    return text
