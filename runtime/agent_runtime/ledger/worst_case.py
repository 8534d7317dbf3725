"""The most that a model call can take, before it is made.

A token is at least one byte of UTF-8, in every tokenizer of the models that any-llm reaches; the JSON around a
message is longer than what its role and its delimiters become. The answer is bounded by its max_tokens.
"""

from __future__ import annotations

import json

import orjson

from agent_runtime.ledger.amounts import MOST, Amounts
from llm_client.prices import PriceBook, cost_micro, price_for
from llm_client.providers.protocol import Price, Target
from llm_client.spec import EmbeddingSpec, RequestSpec
from llm_client.usage import MAX_TOKENS
from runtime_core.call_log.records import Attempt, CallKind, Usage

DEFAULT_MAX_TOKENS = 4096
"""What an answer is bounded by under a budget, where neither the caller nor the role said anything."""
TOKENS_OF_A_PICTURE = 4096
"""For a picture that is named by its address, of which the request has only a few bytes."""


def input_bound(request: RequestSpec | EmbeddingSpec) -> int:
    """Tokens that the request cannot exceed."""
    if isinstance(request, EmbeddingSpec):
        return min(MAX_TOKENS, sum(len(text.encode(errors="replace")) + 8 for text in request.inputs))
    document = [request.messages, request.tools, request.params.get("response_format"), request.tool_choice]
    try:
        text = orjson.dumps(document)
    except TypeError:  # an integer beyond 64 bits, or half of a surrogate pair
        text = json.dumps(document).encode()
    pictures = text.count(b'"image_url":') * TOKENS_OF_A_PICTURE
    return min(MAX_TOKENS, len(text) + pictures)


def choices(request: RequestSpec | EmbeddingSpec) -> int:
    """How many answers are asked for; each may be as long as max_tokens."""
    wanted = request.params.get("n")
    return wanted if isinstance(wanted, int) and wanted > 1 else 1


def worst_case(
    attempt: Attempt, target: Target, *, input_tokens: int, answers: int, prices: PriceBook | None
) -> tuple[Amounts, bool]:
    """The amounts, and whether the model has a price."""
    output = 0
    if attempt.kind is not CallKind.EMBEDDING:
        most = attempt.max_output_tokens
        output = min(MAX_TOKENS, (DEFAULT_MAX_TOKENS if most is None else most) * answers)
    price = price_for(target, prices)
    amounts = Amounts(
        tokens=min(MOST, input_tokens + output),
        cost_micro=0 if price is None else _worst_cost(price, input_tokens, output),
        requests=1,
        turns=turns_of(attempt),
    )
    return amounts, price is not None


def turns_of(attempt: Attempt) -> int:
    """A turn is a call, however often it is tried; embeddings are none."""
    return int(attempt.number == 1 and attempt.kind is not CallKind.EMBEDDING)


def _worst_cost(price: Price, input_tokens: int, output_tokens: int) -> int:
    """At the dearest rates that this many tokens can reach."""
    usage = Usage(input=input_tokens, output=output_tokens)
    rates = [price, *(tier for tier in price.tiers if tier.above < input_tokens)]
    costs = [
        cost_micro(usage, Price(input=max(rate.input, rate.cached_input or rate.input), output=rate.output))
        for rate in rates
    ]
    return max(cost or 0 for cost in costs)
