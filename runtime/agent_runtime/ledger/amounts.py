"""What is counted: whole numbers only, so that no sum depends on the order or on rounding."""

from __future__ import annotations

from dataclasses import dataclass, fields
from decimal import ROUND_CEILING, Decimal
from typing import Final

MICRO: Final = 1_000_000
MOST: Final = 2**53
"""The largest amount of one entry, and the largest limit."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """`cost_micro` is in millionths of a dollar, `runtime_ms` in milliseconds. Raises ValueError out of range."""

    tokens: int = 0
    cost_micro: int = 0
    requests: int = 0
    tool_calls: int = 0
    turns: int = 0
    runtime_ms: int = 0

    def __post_init__(self) -> None:
        values = self.values()
        if min(values) < 0 or max(values) > MOST:
            name, value = next(each for each in zip(MEASURES, values, strict=True) if not 0 <= each[1] <= MOST)
            raise ValueError(f"{name} is {value}; an amount is between 0 and {MOST}.")

    def values(self) -> tuple[int, ...]:
        """In the order of MEASURES."""
        return (self.tokens, self.cost_micro, self.requests, self.tool_calls, self.turns, self.runtime_ms)


MEASURES: Final = tuple(field.name for field in fields(Amounts))
NOTHING: Final = Amounts()


def to_micro(dollars: Decimal | float | str) -> int:
    """Millionths of a dollar, rounded up: what is spent is never understated."""
    return int((Decimal(str(dollars)) * MICRO).to_integral_value(ROUND_CEILING))


def limit_micro(dollars: Decimal) -> int:
    """A limit in millionths of a dollar, rounded down."""
    return int(dollars * MICRO)


def to_ms(seconds: float) -> int:
    """Milliseconds, rounded up."""
    return int((Decimal(str(seconds)) * 1000).to_integral_value(ROUND_CEILING))
