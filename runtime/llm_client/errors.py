"""What can go wrong between a request and its result.

    LLMClientError (an AgentflowError)            `code` is stable and machine-readable
    |- CallFailed                                 the provider, after every attempt: `attempts`, `retry_after`, `status`
    |  |- CallTimedOut
    |  |- CallRateLimited
    |  |- CallMalformed                           an answer came that is not one, or a stream was cut
    |  |- CallRejected                            the provider refused the request or the key: do not retry unchanged
    |  `- CallUnavailable                         down, unreachable, or its circuit is open
    |- CallRefused                                a guard said no; the ledger's and the policy's errors are subclasses
    |- CallCancelled                              a CancellationToken was cancelled
    |- IdempotencyConflictError                   the same key with another request, or in flight elsewhere
    |- CallStoreError                             the call log cannot be written: nothing was sent
    `- ToolError
       |- UnknownTool                             the model named a tool that is not in the list
       |- ToolArgumentsInvalid
       |- ToolFailed
       `- TooManyTurns

Every class takes its message first and its facts as optional keywords, and survives pickling with them.
"""

from __future__ import annotations

from typing import ClassVar

from runtime_core.errors import AgentflowError


class LLMClientError(AgentflowError):
    code: ClassVar[str] = "llm_client"


class CallFailed(LLMClientError):
    """`status` is the provider's HTTP status if there was one, `retry_after` the seconds that it asked for."""

    code: ClassVar[str] = "call_failed"

    def __init__(
        self,
        message: str,
        *,
        role: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        attempts: int = 0,
    ) -> None:
        super().__init__(message)
        self.role = role
        self.provider = provider
        self.model = model
        self.status = status
        self.retry_after = retry_after
        self.attempts = attempts


class CallTimedOut(CallFailed):
    code: ClassVar[str] = "provider_timeout"


class CallRateLimited(CallFailed):
    code: ClassVar[str] = "rate_limited"


class CallMalformed(CallFailed):
    code: ClassVar[str] = "provider_malformed"


class CallRejected(CallFailed):
    code: ClassVar[str] = "provider_rejected"


class CallUnavailable(CallFailed):
    code: ClassVar[str] = "provider_unavailable"


class CallRefused(LLMClientError):
    """A guard refused the call; nothing was sent. `reason` is machine-readable."""

    code: ClassVar[str] = "call_refused"

    def __init__(
        self, message: str, *, scope_id: str | None = None, reason: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.scope_id = scope_id
        self.reason = reason
        self.retry_after = retry_after


class CallCancelled(LLMClientError):
    code: ClassVar[str] = "cancelled"


class IdempotencyConflictError(LLMClientError):
    """The key is taken by another request; `in_flight` when the same request is being made elsewhere."""

    code: ClassVar[str] = "idempotency_conflict"

    def __init__(self, message: str, *, key: str | None = None, in_flight: bool = False) -> None:
        super().__init__(message)
        self.key = key
        self.in_flight = in_flight


class CallStoreError(LLMClientError):
    code: ClassVar[str] = "store_unavailable"


class ToolError(LLMClientError):
    code: ClassVar[str] = "tool_error"

    def __init__(self, message: str, *, tool: str | None = None) -> None:
        super().__init__(message)
        self.tool = tool


class UnknownTool(ToolError):
    code: ClassVar[str] = "unknown_tool"


class ToolArgumentsInvalid(ToolError):
    code: ClassVar[str] = "tool_arguments_invalid"


class ToolFailed(ToolError):
    code: ClassVar[str] = "tool_failed"


class TooManyTurns(ToolError):
    code: ClassVar[str] = "too_many_turns"
