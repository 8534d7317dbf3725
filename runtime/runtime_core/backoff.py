"""How long to wait before the next try."""

from __future__ import annotations

_MAX_DOUBLINGS = 60
"""More would only overflow: by then a pause of a millisecond has become longer than any limit."""


def exponential_s(first_s: float, failed: int) -> float:
    """Seconds to wait after the `failed`th failure: `first_s` after the first, then twice the last pause each time."""
    return first_s * 2.0 ** min(failed - 1, _MAX_DOUBLINGS)
