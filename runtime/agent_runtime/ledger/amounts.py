"""What is counted: whole numbers only, so that no sum depends on the order or on rounding."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal
from typing import Final, NamedTuple, Self

MICRO: Final = 1_000_000
MOST: Final = 2**53
"""The largest amount of one entry, and the largest limit."""


class _Amounts(NamedTuple):
    tokens: int
    cost_micro: int
    requests: int
    tool_calls: int
    turns: int
    runtime_ms: int


MEASURES: Final = _Amounts._fields


class Amounts(_Amounts):
    """A number for each of MEASURES, in their order. `cost_micro` is in millionths of a dollar, `runtime_ms` in
    milliseconds. Raises ValueError out of range.
    """

    __slots__ = ()

    def __new__(
        cls,
        tokens: int = 0,
        cost_micro: int = 0,
        requests: int = 0,
        tool_calls: int = 0,
        turns: int = 0,
        runtime_ms: int = 0,
    ) -> Self:
        amounts = super().__new__(cls, tokens, cost_micro, requests, tool_calls, turns, runtime_ms)
        if min(amounts) < 0 or max(amounts) > MOST:
            name, value = next(each for each in zip(MEASURES, amounts, strict=True) if not 0 <= each[1] <= MOST)
            raise ValueError(f"{name} is {value}; an amount is between 0 and {MOST}.")
        return amounts


NOTHING: Final = Amounts()


def to_micro(dollars: Decimal | float | str) -> int:
    """Millionths of a dollar, rounded up: what is spent is never understated."""
    return _rounded_up(dollars, MICRO)


def limit_micro(dollars: Decimal) -> int:
    """A limit in millionths of a dollar, rounded down."""
    return int(dollars * MICRO)


def to_ms(seconds: float) -> int:
    """Milliseconds, rounded up."""
    return _rounded_up(seconds, 1000)


def _rounded_up(amount: Decimal | float | str, parts: int) -> int:
    return 0 if amount == 0 else int((Decimal(str(amount)) * parts).to_integral_value(ROUND_CEILING))
