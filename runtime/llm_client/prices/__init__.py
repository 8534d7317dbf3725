"""What tokens cost: a role's own price, or the public list prices; an unknown price is None, never 0."""

from .book import PriceBook, price_for
from .cost import cost_micro
from .public import PublicPrices

__all__ = ["PriceBook", "PublicPrices", "cost_micro", "price_for"]
