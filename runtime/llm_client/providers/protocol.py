"""The narrow door to one model."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from llm_client.events import ReasoningDelta, TextDelta, ToolCallDelta
from llm_client.results import CompletionResult, EmbeddingResult
from llm_client.spec import EmbeddingSpec, RequestSpec


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens."""

    input: Decimal
    output: Decimal


@dataclass(frozen=True, slots=True)
class Target:
    """Which model a provider is. `fallback` names the roles to try when it fails.

    `concurrency`, `requests_per_minute` and `tokens_per_minute` are the role's limits, None is no limit.
    """

    role: str
    provider: str
    model: str
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
