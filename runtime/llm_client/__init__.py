"""One engine for every model call: retries, fallbacks, limits, idempotency, caching, and a row for each attempt.

    async with ExecutionEngine(provider=OpenAIProvider(model="gpt-4")) as engine:
        result = await engine.complete(RequestSpec.of("Hello!"))

Importing this package imports none of its modules; a name loads the one that it comes from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentflow.lazy import lazy_exports

if TYPE_CHECKING:
    from llm_client.agent import Agent, AgentEnded, AgentResult, ToolFinished, ToolStarted
    from llm_client.breaker import BreakerConfig
    from llm_client.cache import ResponseCache
    from llm_client.cancellation import CancellationToken
    from llm_client.engine import ExecutionEngine
    from llm_client.errors import (
        CallCancelled,
        CallFailed,
        CallMalformed,
        CallRateLimited,
        CallRefused,
        CallRejected,
        CallStoreError,
        CallTimedOut,
        CallUnavailable,
        IdempotencyConflictError,
        LLMClientError,
        ToolError,
    )
    from llm_client.events import ReasoningDelta, StreamEnded, StreamEvent, StreamFailed, TextDelta, ToolCallDelta
    from llm_client.guard import Admission, AdmitAll, Guard, Lease
    from llm_client.hooks import Hook, HookEvent
    from llm_client.idempotency import IdempotencyTracker
    from llm_client.log import AttemptLog
    from llm_client.prices import PriceBook, PublicPrices
    from llm_client.providers.hub import RoleProvider
    from llm_client.providers.openai import OpenAIProvider
    from llm_client.providers.protocol import Price, Provider, Router, Target
    from llm_client.results import CompletionResult, EmbeddingResult, ToolCall
    from llm_client.retry import NO_RETRY, AttemptBudget, RetryPolicy
    from llm_client.router import HubRouter
    from llm_client.spec import EmbeddingSpec, RequestContext, RequestSpec
    from llm_client.tools import Tool, tool

_HOMES = {
    "agent": ("Agent", "AgentEnded", "AgentResult", "ToolFinished", "ToolStarted"),
    "breaker": ("BreakerConfig",),
    "cache": ("ResponseCache",),
    "cancellation": ("CancellationToken",),
    "engine": ("ExecutionEngine",),
    "errors": (
        "CallCancelled",
        "CallFailed",
        "CallMalformed",
        "CallRateLimited",
        "CallRefused",
        "CallRejected",
        "CallStoreError",
        "CallTimedOut",
        "CallUnavailable",
        "IdempotencyConflictError",
        "LLMClientError",
        "ToolError",
    ),
    "events": ("ReasoningDelta", "StreamEnded", "StreamEvent", "StreamFailed", "TextDelta", "ToolCallDelta"),
    "guard": ("Admission", "AdmitAll", "Guard", "Lease"),
    "hooks": ("Hook", "HookEvent"),
    "idempotency": ("IdempotencyTracker",),
    "log": ("AttemptLog",),
    "prices": ("PriceBook", "PublicPrices"),
    "providers.hub": ("RoleProvider",),
    "providers.openai": ("OpenAIProvider",),
    "providers.protocol": ("Price", "Provider", "Router", "Target"),
    "results": ("CompletionResult", "EmbeddingResult", "ToolCall"),
    "retry": ("NO_RETRY", "AttemptBudget", "RetryPolicy"),
    "router": ("HubRouter",),
    "spec": ("EmbeddingSpec", "RequestContext", "RequestSpec"),
    "tools": ("Tool", "tool"),
}

__all__ = [
    "NO_RETRY",
    "Admission",
    "AdmitAll",
    "Agent",
    "AgentEnded",
    "AgentResult",
    "AttemptBudget",
    "AttemptLog",
    "BreakerConfig",
    "CallCancelled",
    "CallFailed",
    "CallMalformed",
    "CallRateLimited",
    "CallRefused",
    "CallRejected",
    "CallStoreError",
    "CallTimedOut",
    "CallUnavailable",
    "CancellationToken",
    "CompletionResult",
    "EmbeddingResult",
    "EmbeddingSpec",
    "ExecutionEngine",
    "Guard",
    "Hook",
    "HookEvent",
    "HubRouter",
    "IdempotencyConflictError",
    "IdempotencyTracker",
    "LLMClientError",
    "Lease",
    "OpenAIProvider",
    "Price",
    "PriceBook",
    "Provider",
    "PublicPrices",
    "ReasoningDelta",
    "RequestContext",
    "RequestSpec",
    "ResponseCache",
    "RetryPolicy",
    "RoleProvider",
    "Router",
    "StreamEnded",
    "StreamEvent",
    "StreamFailed",
    "Target",
    "TextDelta",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolError",
    "ToolFinished",
    "ToolStarted",
    "tool",
]

__getattr__ = lazy_exports(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
