"""From tokens to money, in whole millionths of a dollar."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from math import lcm

from llm_client.providers.protocol import Price, PriceTier
from runtime_core.call_log.records import Usage

MOST_MICRO = 2**53
"""The largest cost that the call log can hold: nine billion dollars."""


def cost_micro(usage: Usage | None, price: Price | None) -> int | None:
    """What `usage` costs, rounded once, half up; None where either is unknown.

    A dollar for a million tokens is a millionth of a dollar for one, so the sum is exact until it is rounded.
    Cached input beyond the input itself is not believed.
    """
    if usage is None or price is None:
        return None
    rates = _rates(price, usage.input)
    cached = min(usage.cached, usage.input)
    input_, cached_input, output, parts = _whole(rates.input, rates.cached_input, rates.output)
    exact = (usage.input - cached) * input_ + cached * cached_input + usage.output * output
    return min(MOST_MICRO, (2 * exact + parts) // (2 * parts))


def _rates(price: Price, input_tokens: int) -> Price | PriceTier:
    if not price.tiers:
        return price
    return next((tier for tier in reversed(price.tiers) if input_tokens > tier.above), price)


@lru_cache(maxsize=1024)
def _whole(input_: Decimal, cached_input: Decimal | None, output: Decimal) -> tuple[int, int, int, int]:
    """The rates as whole numbers of the same part of a micro-dollar, and how many such parts one has."""
    known = (input_, input_ if cached_input is None else cached_input, output)
    ratios = [rate.as_integer_ratio() for rate in known]
    parts = lcm(*(below for _, below in ratios))
    whole = [above * (parts // below) for above, below in ratios]
    return whole[0], whole[1], whole[2], parts
