"""What model calls took, in words: for a response header and for people."""

from __future__ import annotations

from decimal import Decimal

from runtime_core.report import ModelUse


def describe(use: ModelUse) -> str:
    """`calls=3, input_tokens=120, output_tokens=40, cost_usd=0.000012`.

    The cost covers the calls whose price is known; `unpriced=N` says how many are missing in it, `estimated=N` for
    how many the tokens are our own count.
    """
    facts: dict[str, object] = {
        "calls": use.calls,
        "input_tokens": use.input_tokens,
        "output_tokens": use.output_tokens,
    }
    if use.unpriced < use.calls:
        facts["cost_usd"] = dollars(use.cost_micro)
    facts |= {name: count for name, count in (("unpriced", use.unpriced), ("estimated", use.estimated)) if count}
    return ", ".join(f"{name}={value}" for name, value in facts.items())


def dollars(micro: int) -> str:
    """Millionths of a dollar as dollars, without an exponent."""
    return f"{Decimal(micro) / 1_000_000:f}"
