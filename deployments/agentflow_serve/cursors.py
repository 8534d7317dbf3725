"""Where the next page of a list begins, as text that means nothing to anybody else. It holds a place and no scope."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

MOST_AT_ONCE = 1000
"""Lines of one page."""
_MOST_CURSOR = 8000
_INT64 = 2**63


def cursor_of(place: list[Any] | None) -> str | None:
    """The text for a place, which is a list of strings and numbers; None after the last page."""
    if place is None:
        return None
    return (
        base64.urlsafe_b64encode(json.dumps(place, ensure_ascii=False, separators=(",", ":")).encode())
        .decode()
        .rstrip("=")
    )


def place_of(text: str, *kinds: type) -> list[Any]:
    """The place of a cursor, with values of these kinds. Raises ValueError for a text that is none."""
    if len(text) > _MOST_CURSOR or not text.isascii():
        raise ValueError("not a cursor")
    try:
        found = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError) as exc:
        raise ValueError("not a cursor") from exc
    if not isinstance(found, list) or [type(each) for each in found] != list(kinds):
        raise ValueError("not a cursor")
    if any(not _can_be_stored(each) for each in found):
        raise ValueError("not a cursor")
    return found


def _can_be_stored(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= char <= "\udfff" for char in value)
    return -_INT64 <= value < _INT64  # false for NaN and infinity too
