"""From tokens to money, in whole millionths of a dollar."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Context, Decimal

from llm_client.providers.protocol import Price, PriceTier
from runtime_core.call_log.records import Usage

MOST_MICRO = 2**53
"""The largest cost that the call log can hold: nine billion dollars."""

# More digits than any count times any price has.
_EXACT = Context(prec=100)


def cost_micro(usage: Usage | None, price: Price | None) -> int | None:
    """What `usage` costs, rounded once, half up; None where either is unknown.

    A dollar for a million tokens is a millionth of a dollar for one, so the sum is exact until it is rounded.
    Cached input beyond the input itself is not believed.
    """
    if usage is None or price is None:
        return None
    rates = _rates(price, usage.input)
    cached = min(usage.cached, usage.input)
    cached_rate = rates.input if rates.cached_input is None else rates.cached_input
    exact = _EXACT.multiply(Decimal(usage.input - cached), rates.input)
    exact = _EXACT.fma(Decimal(cached), cached_rate, exact)
    exact = _EXACT.fma(Decimal(usage.output), rates.output, exact)
    return min(MOST_MICRO, int(exact.to_integral_value(ROUND_HALF_UP)))


def _rates(price: Price, input_tokens: int) -> Price | PriceTier:
    return next((tier for tier in reversed(price.tiers) if input_tokens > tier.above), price)
