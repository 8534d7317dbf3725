"""Tokens become money exactly, and a price that nobody knows is never zero."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_client.prices import PublicPrices, cost_micro, price_for
from llm_client.prices.cost import MOST_MICRO
from llm_client.providers.protocol import Price, PriceTier, Target
from runtime_core.call_log.records import Usage
from runtime_core.clock import ManualClock

DOLLARS = st.decimals(min_value=0, max_value=1000, places=6)
PRICES = st.builds(Price, input=DOLLARS, output=DOLLARS, cached_input=st.none() | DOLLARS)
TOKENS = st.integers(0, 10**7)
USAGES = st.builds(Usage, input=TOKENS, output=TOKENS, cached=TOKENS)


def test_a_dollar_for_a_million_tokens_is_a_millionth_for_one():
    price = Price(input=Decimal("2.50"), output=Decimal(10), cached_input=Decimal("1.25"))
    assert cost_micro(Usage(input=1000, output=100), price) == 2500 + 1000
    assert cost_micro(Usage(input=1000, output=100, cached=400), price) == 1500 + 500 + 1000


@pytest.mark.parametrize(("dollars", "micro"), [("0.49", 0), ("0.50", 1), ("1.4999999", 1), ("2.5", 3)])
def test_the_sum_is_rounded_once_half_up(dollars: str, micro: int):
    price = Price(input=Decimal(dollars), output=Decimal(0))
    assert cost_micro(Usage(input=1), price) == micro


def test_what_is_not_known_has_no_cost():
    assert cost_micro(Usage(input=1), None) is None
    assert cost_micro(None, Price(input=Decimal(1), output=Decimal(1))) is None


@given(USAGES, PRICES)
def test_a_cost_is_the_nearest_whole_number_and_never_negative(usage: Usage, price: Price):
    cost = cost_micro(usage, price)
    assert type(cost) is int
    assert cost >= 0
    cached = min(usage.cached, usage.input)
    rate = price.input if price.cached_input is None else price.cached_input
    exact = Fraction(price.input) * (usage.input - cached) + Fraction(rate) * cached
    exact += Fraction(price.output) * usage.output
    assert -Fraction(1, 2) <= exact - cost < Fraction(1, 2)


@given(USAGES, PRICES, TOKENS, TOKENS, DOLLARS)
def test_more_tokens_or_a_higher_price_never_cost_less(
    usage: Usage, price: Price, more: int, out: int, dearer: Decimal
):
    cost = cost_micro(usage, price) or 0
    larger = usage.model_copy(update={"input": usage.input + more, "output": usage.output + out})
    higher = Price(input=price.input + dearer, output=price.output + dearer, cached_input=price.cached_input)
    assert (cost_micro(larger, price) or 0) >= cost
    assert (cost_micro(usage, higher) or 0) >= cost


def test_a_senseless_usage_still_fits_the_call_log():
    most = 2**53
    price = Price(input=Decimal(1000), output=Decimal(1000))
    assert cost_micro(Usage(input=most, output=most, cached=most), price) == MOST_MICRO


def test_a_long_request_is_charged_wholly_by_its_tier():
    tier = PriceTier(above=200, input=Decimal(6), output=Decimal(20))
    price = Price(input=Decimal(3), output=Decimal(15), tiers=(tier,))
    assert cost_micro(Usage(input=200, output=10), price) == 600 + 150
    assert cost_micro(Usage(input=201, output=10), price) == 1206 + 200


def test_a_roles_own_price_wins():
    own = Price(input=Decimal(7), output=Decimal(8))

    class Book:
        def price(self, provider: str, model: str) -> Price | None:
            return Price(input=Decimal(1), output=Decimal(1)) if provider == "listed" else None

    assert price_for(Target(role="r", provider="listed", model="m", price=own), Book()) == own
    assert price_for(Target(role="r", provider="listed", model="m"), Book()) == Book().price("listed", "m")
    assert price_for(Target(role="r", provider="other", model="m"), Book()) is None
    assert price_for(Target(role="r", provider="listed", model="m"), None) is None


@pytest.fixture(scope="module")
def prices() -> PublicPrices:
    book = PublicPrices(clock=ManualClock(start=datetime(2026, 1, 1, 12, tzinfo=UTC)))
    book.load()
    return book


def test_list_prices_need_no_network(prices: PublicPrices, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    price = prices.price("openai", "gpt-4o-2024-08-06")
    assert price == Price(input=Decimal("2.5"), output=Decimal(10), cached_input=Decimal("1.25"))


def test_a_model_or_provider_that_is_not_listed_has_no_price(prices: PublicPrices):
    assert prices.price("openai", "my-own-model") is None
    assert prices.price("vllm", "gpt-4o") is None
    assert prices.price("my-openai-proxy", "gpt-4o") is None, "a provider is never guessed from a part of its name"


def test_a_charge_that_tokens_do_not_decide_leaves_the_price_unknown(prices: PublicPrices):
    assert prices.price("perplexity", "sonar-pro") is None


def test_list_prices_know_tiers(prices: PublicPrices):
    price = prices.price("gemini", "gemini-2.5-pro")
    assert price is not None
    [tier] = price.tiers
    assert tier.above == 200_000
    assert tier.input > price.input
    assert tier.output > price.output


def test_list_prices_follow_the_clock():
    clock = ManualClock(start=datetime(2026, 1, 1, 12, tzinfo=UTC))
    book = PublicPrices(clock=clock)
    day = book.price("deepseek", "deepseek-chat")
    clock.advance(8 * 3600)
    night = book.price("deepseek", "deepseek-chat")
    assert day is not None
    assert night is not None
    assert night.input < day.input


@pytest.mark.parametrize("provider", ["azureopenai", "bedrock", "gemini", "moonshot", "vertexai", "voyage", "xai"])
def test_any_llms_names_of_providers_are_found(prices: PublicPrices, provider: str):
    models = {
        "azureopenai": "gpt-4o",
        "bedrock": "anthropic.claude-3-5-sonnet-20241022-v2:0",
        "gemini": "gemini-2.5-flash",
        "moonshot": "kimi-k2-0905-preview",
        "vertexai": "gemini-2.5-flash",
        "voyage": "voyage-3",
        "xai": "grok-4",
    }
    assert prices.price(provider, models[provider]) is not None
