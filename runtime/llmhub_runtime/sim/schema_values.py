"""Numbers and texts that a schema shape allows, readable where the shape leaves room.

Every function returns None when it finds no value. `turn` counts the items of an array, so that
neighbours differ; outside arrays it is None.
"""

from __future__ import annotations

import math
import random
import string
import uuid
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from llmhub_runtime.sim.patterns import text_matching
from llmhub_runtime.sim.schema_merge import Shape

_SPAN = 100
_EXACT_FLOAT = 2**53
_MAX_TEXT = 1 << 20


def number(shape: Shape, *, whole: bool, rng: random.Random, turn: int | None) -> int | float | None:
    """A number within the bounds, on the grid of `multipleOf`, with few decimals if that is possible."""
    low, high = _bounds(shape)
    grid = _grid(shape.get("multipleOf", ()), whole=whole)
    grids = [grid] if grid else [Fraction(1, 10**digits) for digits in (2, 6, 15)]
    if not grid and max(abs(low or 0), abs(high or 0)) >= _EXACT_FLOAT:
        grids.insert(0, Fraction(1))
    for step in grids:
        found = _on_grid(shape, low, high, step, rng=rng, turn=turn)
        if found is not None:
            return found
    return None if grid or low is None or high is None else _between(shape, float(low), float(high))


def _bounds(shape: Shape) -> tuple[Fraction | None, Fraction | None]:
    lows = [Fraction(shape[key]) for key in ("minimum", "exclusiveMinimum") if key in shape]
    highs = [Fraction(shape[key]) for key in ("maximum", "exclusiveMaximum") if key in shape]
    return (max(lows) if lows else None, min(highs) if highs else None)


def _grid(multiples: Sequence[int | float], *, whole: bool) -> Fraction | None:
    steps = [Fraction(str(multiple)) for multiple in multiples] + ([Fraction(1)] if whole else [])
    if not steps:
        return None
    scale = math.prod(step.denominator for step in steps)
    return Fraction(math.lcm(*(int(step * scale) for step in steps)), scale)


def _on_grid(
    shape: Shape,
    low: Fraction | None,
    high: Fraction | None,
    step: Fraction,
    *,
    rng: random.Random,
    turn: int | None,
) -> int | float | None:
    span = max(1, int(_SPAN / step)) if step < 1 else _SPAN
    first = math.ceil(low / step) if low is not None else (math.floor(high / step) - span if high is not None else 0)
    last = math.floor(high / step) if high is not None else first + span
    if last < first:
        return None
    count = min(last - first, 10 * _SPAN * _SPAN) + 1
    start = rng.randrange(count) if turn is None else turn % count
    for offset in range(min(count, 2 * _SPAN)):
        value = _shortest((first + (start + offset) % count) * step)
        if value is not None and within_limits(value, shape):
            return value
    return None


def _shortest(value: Fraction) -> int | float | None:
    if value.denominator == 1:
        return int(value)
    try:
        return float(value)
    except OverflowError:
        return None


def _between(shape: Shape, low: float, high: float) -> float | None:
    candidates = (
        low + (high - low) / 2,
        low,
        high,
        math.nextafter(low, math.inf),
        math.nextafter(high, -math.inf),
    )
    return next((value for value in candidates if math.isfinite(value) and within_limits(value, shape)), None)


def within_limits(value: int | float, shape: Shape) -> bool:
    """The same comparisons a validator makes, on the value as it will be sent."""
    return (
        shape.get("minimum", value) <= value <= shape.get("maximum", value)
        and ("exclusiveMinimum" not in shape or value > shape["exclusiveMinimum"])
        and ("exclusiveMaximum" not in shape or value < shape["exclusiveMaximum"])
        and all(_divides(value, multiple) for multiple in shape.get("multipleOf", ()))
    )


def _divides(value: int | float, multiple: int | float) -> bool:
    if isinstance(value, int) and isinstance(multiple, int):
        return value % multiple == 0
    quotient = value / multiple
    return math.isfinite(quotient) and quotient == int(quotient)


def text(shape: Shape, *, name: str, words: Sequence[str], rng: random.Random, turn: int | None) -> str | None:
    """A text of the right length that matches the shape's (first) `pattern`, if that can be built."""
    shortest, longest = shape.get("minLength", 0), shape.get("maxLength")
    if (longest is not None and longest < shortest) or shortest > _MAX_TEXT:
        return None
    for pattern in shape.get("pattern", ()):
        built = text_matching(pattern, rng=rng, shortest=shortest, longest=longest)
        if built is not None:
            return built
    written = _formatted(shape.get("format"), name, rng, turn) or _readable(name, words, turn)
    return _fitted(written, shortest, longest, turn)


def _readable(name: str, words: Sequence[str], turn: int | None) -> str:
    if not name and turn is not None and turn < len(words):
        return words[turn]
    label = name.replace("_", " ").strip() or ("value" if turn is None else "item")
    numbered = label if turn is None else f"{label} {turn + 1}"
    return f"{numbered}: {' '.join(words)}" if words else f"some {numbered}"


def _fitted(written: str, shortest: int, longest: int | None, turn: int | None) -> str:
    if longest is not None and len(written) > longest:
        written = (written if turn is None else _short_name(turn) + written)[:longest]
        written = written.rstrip()
    if len(written) < shortest:
        written = (f"{written} " * (shortest // (len(written) + 1) + 1))[:shortest]
    return written


def _short_name(turn: int) -> str:
    digits = string.ascii_lowercase + string.digits
    return digits[turn % len(digits)] + (_short_name(turn // len(digits)) if turn >= len(digits) else "")


def _formatted(wanted: Any, name: str, rng: random.Random, turn: int | None) -> str | None:
    slug = "".join(char for char in name.lower() if char.isascii() and char.isalnum())[:40] or "value"
    slug = slug if turn is None else f"{slug}{turn + 1}"
    day, hour = rng.randint(1, 28), rng.randint(0, 23)
    match wanted:
        case "date-time":
            return f"2025-03-{day:02}T{hour:02}:30:00Z"
        case "date":
            return f"2025-03-{day:02}"
        case "time":
            return f"{hour:02}:30:00Z"
        case "duration":
            return f"PT{hour}H"
        case "email" | "idn-email":
            return f"{slug}@example.com"
        case "hostname" | "idn-hostname":
            return f"{slug}.example.com"
        case "uri" | "iri" | "url":
            return f"https://example.com/{slug}"
        case "uri-reference" | "iri-reference" | "uri-template" | "json-pointer":
            return f"/{slug}"
        case "relative-json-pointer":
            return f"0/{slug}"
        case "uuid":
            return str(uuid.UUID(int=rng.getrandbits(128), version=4))
        case "ipv4":
            return f"192.0.2.{day}"
        case "ipv6":
            return f"2001:db8::{day:x}"
        case "regex":
            return f"^{slug}$"
        case _:
            return None
