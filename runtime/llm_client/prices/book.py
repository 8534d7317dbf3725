"""Where a price comes from."""

from __future__ import annotations

from typing import Protocol

from llm_client.providers.protocol import Price, Target


class PriceBook(Protocol):
    """Prices by provider and model, under any-llm's names."""

    def price(self, provider: str, model: str) -> Price | None:
        """The price now; None where it is not known. Prices change with the date: ask again for each call."""
        ...


def price_for(target: Target, book: PriceBook | None) -> Price | None:
    """The role's own price in llmhub.yaml if it has one, else the book's."""
    if target.price is not None or book is None:
        return target.price
    return book.price(target.provider, target.model)
