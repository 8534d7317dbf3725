"""What a failed attempt means: for the caller, for its row in the log, and for what is tried next.

released   a complete refusal came back (4xx, most 5xx), or nothing was ever sent
settled    an answer came that is not one, and says what it cost
unknown    everything else: timed out, cut off, cancelled, a gateway that lost its upstream
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from llm_client.errors import (
    CallCancelled,
    CallFailed,
    CallMalformed,
    CallRateLimited,
    CallRejected,
    CallTimedOut,
    CallUnavailable,
)
from llm_client.retry import Failure
from llm_client.spec import EmbeddingSpec, RequestSpec
from llm_client.usage import estimated_input, is_readable, tokens_of, usage_of
from llmhub_runtime.errors import (
    LLMHubRuntimeError,
    ProviderAuthError,
    ProviderBadRequestError,
    ProviderCallError,
    ProviderMalformedError,
    ProviderRateLimitError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from runtime_core.call_log.records import AttemptStatus, Usage

_ERRORS: dict[type[ProviderCallError], type[CallFailed]] = {
    ProviderAuthError: CallRejected,
    ProviderBadRequestError: CallRejected,
    ProviderRateLimitError: CallRateLimited,
    ProviderTimeoutError: CallTimedOut,
    ProviderUnavailableError: CallUnavailable,
    ProviderMalformedError: CallMalformed,
}
_UPSTREAM_LOST = frozenset({408, 502, 504})
"""Refusals of a gateway, behind which the model may be at work."""
_ANOTHER_MAY_SERVE = frozenset({"context_length", "not_found", "unsupported_parameter"})
"""Bad requests that another model might take."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What a stream had brought when it ended; nothing, for a call that is no stream."""

    text_bytes: int = 0
    streamed: bool = False


NOTHING = Delivered()


@dataclass(frozen=True, slots=True)
class Judgement:
    """`error` is what the caller gets, unless it is cancelled; `alive` what the circuit breaker learns."""

    status: AttemptStatus
    code: str
    usage: Usage | None
    failure: Failure
    error: CallFailed | None = None
    alive: bool | None = None


def judge(
    exc: BaseException,
    request: RequestSpec | EmbeddingSpec,
    *,
    delivered: Delivered,
    max_output: int | None,
) -> Judgement:
    """The meaning of `exc`, which ended an attempt after its row was reserved."""
    if isinstance(exc, ProviderCallError):
        return _judge_provider(exc, request, delivered, max_output)
    if isinstance(exc, CallTimedOut):
        usage = _best_guess(request, delivered, max_output)
        return Judgement(AttemptStatus.UNKNOWN, exc.code, usage, Failure(False, False), exc, alive=False)
    if isinstance(exc, LLMHubRuntimeError):  # a role of the wrong mode, a closed hub: nothing was sent
        return Judgement(AttemptStatus.RELEASED, "not_sent", None, Failure(False, False))
    usage = _best_guess(request, delivered, max_output)
    left = isinstance(exc, asyncio.CancelledError | GeneratorExit | CallCancelled)
    return Judgement(AttemptStatus.UNKNOWN, "cancelled" if left else "internal", usage, Failure(False, False))


def call_failed(exc: ProviderCallError) -> CallFailed:
    """The same error in this package's tree."""
    kind = next((_ERRORS[cls] for cls in type(exc).__mro__ if cls in _ERRORS), CallFailed)
    return kind(
        str(exc), role=exc.role, provider=exc.provider, model=exc.model, status=exc.status, retry_after=exc.retry_after
    )


def _judge_provider(
    exc: ProviderCallError, request: RequestSpec | EmbeddingSpec, delivered: Delivered, max_output: int | None
) -> Judgement:
    error = call_failed(exc)
    final = isinstance(exc, ProviderAuthError | ProviderBadRequestError)
    fallback = not isinstance(exc, ProviderBadRequestError) or exc.code in _ANOTHER_MAY_SERVE
    failure = Failure(retry=not final, fallback=fallback, retry_after=exc.retry_after)
    # A rate limit is no outage: it has its own way of making us wait.
    alive = None if final or isinstance(exc, ProviderRateLimitError) else False
    status, usage = _settlement(exc, request, delivered, max_output)
    return Judgement(status, error.code, usage, failure, error, alive)


def _settlement(
    exc: ProviderCallError, request: RequestSpec | EmbeddingSpec, delivered: Delivered, max_output: int | None
) -> tuple[AttemptStatus, Usage | None]:
    if is_readable(exc.usage):
        return AttemptStatus.SETTLED, usage_of(exc.usage, request, delivered_bytes=delivered.text_bytes)
    if not delivered.text_bytes:
        refused = exc.status is not None and exc.status >= 400 and exc.status not in _UPSTREAM_LOST
        never_left = exc.status is None and isinstance(exc, ProviderAuthError | ProviderBadRequestError)
        if exc.not_sent or refused or never_left:
            return AttemptStatus.RELEASED, None
    return AttemptStatus.UNKNOWN, _best_guess(request, delivered, max_output)


def _best_guess(request: RequestSpec | EmbeddingSpec, delivered: Delivered, max_output: int | None) -> Usage:
    """Of a stream, what came; of a call that brought nothing, what it was allowed to use."""
    output = tokens_of(delivered.text_bytes) if delivered.streamed else max_output or 0
    return Usage(input=estimated_input(request), output=output, estimated=True)
