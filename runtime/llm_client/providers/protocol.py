"""The narrow door to one model."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol

from llm_client.events import ReasoningDelta, TextDelta, ToolCallDelta
from llm_client.results import CompletionResult, EmbeddingResult
from llm_client.spec import EmbeddingSpec, RequestSpec


@dataclass(frozen=True, slots=True)
class PriceTier:
    """What a request costs whose input has more than `above` tokens: all of its tokens, not only those beyond."""

    above: int
    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens.

    `cached_input` is for the input that the provider had in its cache; None is the price of any other input.
    `tiers` ascend; the last one that a request exceeds replaces the prices here.
    """

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    tiers: tuple[PriceTier, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """Which model a provider is. `fallback` names the roles to try when it fails.

    `params` are the role's own, which a request's are laid over. `concurrency`, `requests_per_minute` and
    `tokens_per_minute` are the role's limits, None is no limit.
    """

    role: str
    provider: str
    model: str
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    price: Price | None = None
    fallback: tuple[str, ...] = ()
    timeout_s: float | None = None
    concurrency: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


Delta = TextDelta | ReasoningDelta | ToolCallDelta


class Provider(Protocol):
    """One model. Makes one request per call and never retries; raises llmhub_runtime's ProviderCallError tree.

    `attempt_id` goes on the wire as the header `x-attempt-id`.
    """

    @property
    def target(self) -> Target: ...

    async def complete(self, request: RequestSpec, *, attempt_id: str) -> CompletionResult: ...

    def stream(self, request: RequestSpec, *, attempt_id: str) -> AsyncGenerator[Delta | CompletionResult]:
        """Deltas as they come, then the assembled result. A stream without a finish reason raises."""
        ...

    async def embed(self, request: EmbeddingSpec, *, attempt_id: str) -> EmbeddingResult: ...

    async def warm_up(self) -> None:
        """Make the client now, so that the first call does not pay for it."""
        ...


class Router(Protocol):
    """Finds the provider of a role; raises llmhub_runtime's UnknownRoleError and ConfigError."""

    def provider(self, role: str) -> Provider: ...
