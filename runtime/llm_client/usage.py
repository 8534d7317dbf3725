"""Tokens: what a provider says, made safe to count with.

A count that is missing, negative, of a wrong type or beyond any model is replaced by our own, and the whole usage
is marked as estimated. Our own count is a rule of thumb: four UTF-8 bytes of text are a token, an inline picture
is a thousand. It is never below what was delivered by the same rule.
"""

from __future__ import annotations

from typing import Any

from llm_client.spec import EmbeddingSpec, RequestSpec
from runtime_core.call_log.records import Usage
from runtime_core.frozen import unchecked

BYTES_PER_TOKEN = 4
INLINE_DATA_TOKENS = 1000
MAX_TOKENS = 10**8
"""More than any model reads or writes in one call."""


def tokens_of(text_bytes: int) -> int:
    return -(-text_bytes // BYTES_PER_TOKEN)


def estimated_input(request: RequestSpec | EmbeddingSpec) -> int:
    """Tokens of a request by our own count, at least one."""
    texts = request.inputs if isinstance(request, EmbeddingSpec) else [request.messages, request.tools]
    return max(1, tokens_of(_text_bytes(texts)))


def _text_bytes(value: Any) -> int:
    match value:
        case str():
            inline = value.startswith("data:")
            return INLINE_DATA_TOKENS * BYTES_PER_TOKEN if inline else len(value.encode(errors="replace"))
        case dict():
            return sum(map(_text_bytes, value.values()))
        case list() | tuple():
            return sum(map(_text_bytes, value))
        case _:
            return 0


def usage_of(raw: Any, request: RequestSpec | EmbeddingSpec, *, delivered_bytes: int) -> Usage:
    """The usage that a provider reported (`raw` is any-llm's, or None), with its gaps filled by our own count."""
    input_, output = _count(raw, "prompt_tokens"), _count(raw, "completion_tokens")
    if isinstance(request, EmbeddingSpec):
        output = 0
    if input_ is None or output is None:
        return Usage(
            input=estimated_input(request) if input_ is None else input_,
            output=tokens_of(delivered_bytes) if output is None else output,
            estimated=True,
        )
    cached = _count(getattr(raw, "prompt_tokens_details", None), "cached_tokens") or 0
    reasoning = _count(getattr(raw, "completion_tokens_details", None), "reasoning_tokens") or 0
    return unchecked(
        Usage,
        input=input_,
        output=output,
        cached=min(cached, input_),
        reasoning=min(reasoning, output),
        estimated=False,
    )


def is_readable(raw: Any) -> bool:
    """Whether a provider's usage says how many tokens it counted."""
    return _count(raw, "prompt_tokens") is not None and _count(raw, "completion_tokens") is not None


def _count(holder: Any, name: str) -> int | None:
    value = getattr(holder, name, None)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TOKENS:
        return value
    return None
