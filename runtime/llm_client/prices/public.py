"""The providers' list prices, from the data that genai-prices ships. It is never updated over the network.

List prices are what an account without a contract pays for text. They know nothing of an `api_base` that serves
another model under the same name, and nothing of batch or priority service, audio, images, cache writes or
search fees; give such a role a `price` of its own.
"""

from __future__ import annotations

from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING

from llm_client.providers.protocol import Price, PriceTier
from runtime_core.clock import Clock, SystemClock

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelPrice, TieredPrices

_LISTED_AS = {
    "azureanthropic": "azure",
    "azureopenai": "azure",
    "bedrock": "aws",
    "gemini": "google",
    "moonshot": "moonshotai",
    "vertexai": "google",
    "vertexaianthropic": "google",
    "voyage": "voyageai",
    "xai": "x-ai",
}
"""any-llm's names of providers where the list has others. (The list's own matching takes any part of a name.)"""
_UNCOUNTED = ("requests_kcount", "output_reasoning_mtok", "output_citation_mtok")
"""Charges that do not follow from input and output tokens: with one of them the price is not known."""


class PublicPrices:
    """A PriceBook of list prices. The first price takes half a second, which `load()` can spend beforehand."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._snapshot: DataSnapshot | None = None

    def load(self) -> None:
        """Read the list now. Blocks: call it in a thread."""
        self._loaded()

    def price(self, provider: str, model: str) -> Price | None:
        """Models without an output price, such as embeddings, are charged by their input alone."""
        snapshot = self._loaded()
        listed = _LISTED_AS.get(provider, provider)
        if all(each.id != listed for each in snapshot.providers):
            return None
        try:
            _, found = snapshot.find_provider_model(model, None, listed, None)
        except LookupError:
            return None
        return _price(found.get_prices(self._clock.now()))

    def _loaded(self) -> DataSnapshot:
        if self._snapshot is None:
            from genai_prices.data_snapshot import DataSnapshot

            # by name, because a type checker would take minutes to read this module
            providers = import_module("genai_prices.data").providers
            self._snapshot = DataSnapshot(providers=providers, from_auto_update=False)
        return self._snapshot


def _price(listed: ModelPrice) -> Price | None:
    if listed.input_mtok is None or any(getattr(listed, key) is not None for key in _UNCOUNTED):
        return None
    rates = (listed.input_mtok, listed.output_mtok, listed.cache_read_mtok)
    starts = sorted({tier.start for rate in rates for tier in getattr(rate, "tiers", ())})
    base, *tiers = (_tier(listed, start) for start in (0, *starts))
    return Price(input=base.input, output=base.output, cached_input=base.cached_input, tiers=tuple(tiers))


def _tier(listed: ModelPrice, above: int) -> PriceTier:
    return PriceTier(
        above=above,
        input=_rate(listed.input_mtok, above) or Decimal(0),
        output=_rate(listed.output_mtok, above) or Decimal(0),
        cached_input=_rate(listed.cache_read_mtok, above),
    )


def _rate(listed: Decimal | TieredPrices | None, above: int) -> Decimal | None:
    if listed is None or isinstance(listed, Decimal):
        return listed
    return next((tier.price for tier in reversed(listed.tiers) if tier.start <= above), listed.base)
