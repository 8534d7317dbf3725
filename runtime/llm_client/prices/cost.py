"""From tokens to money, in whole millionths of a dollar."""

from __future__ import annotations

from fractions import Fraction

from llm_client.providers.protocol import Price, PriceTier
from runtime_core.call_log.records import Usage

MOST_MICRO = 2**53
"""The largest cost that the call log can hold: nine billion dollars."""


def cost_micro(usage: Usage | None, price: Price | None) -> int | None:
    """What `usage` costs, rounded once, half up; None where either is unknown.

    A dollar for a million tokens is a millionth of a dollar for one, so nothing but the price is a fraction.
    Cached input beyond the input itself is not believed.
    """
    if usage is None or price is None:
        return None
    rates = _rates(price, usage.input)
    cached = min(usage.cached, usage.input)
    cached_rate = rates.input if rates.cached_input is None else rates.cached_input
    exact = (
        (usage.input - cached) * Fraction(rates.input)
        + cached * Fraction(cached_rate)
        + usage.output * Fraction(rates.output)
    )
    return min(MOST_MICRO, int(exact + Fraction(1, 2)))


def _rates(price: Price, input_tokens: int) -> Price | PriceTier:
    return next((tier for tier in reversed(price.tiers) if input_tokens > tier.above), price)
