"""What can go wrong between a role and an answer.

    LLMHubRuntimeError (an AgentflowError)
    |- ConfigError              the configuration: what is wrong, in which file, line and key
    |- UnknownRoleError         no such role, and no defaults to serve it
    |- UnknownProviderError     a role names a provider that nobody knows
    |- EnvVarMissingError       environment variables that hold keys are not set
    |- ModeMismatchError        the role is for another kind of call
    |  `- UnsupportedModeError  the role's mode has no call at all yet (image, audio, other)
    |- HubClosedError           the hub was closed
    |- UnmeteredCallError       a hub was called directly inside a served flow, past the engine
    |- StreamAbandonedError     reported to the after-hook, never raised: the consumer stopped reading
    `- ProviderCallError        the provider; the facts of the call are attributes
       |- ProviderAuthError         the key or the account may not make this call; do not retry
       |- ProviderBadRequestError   the request is wrong; do not retry it unchanged
       |- ProviderRateLimitError    too many requests; retry after `retry_after` seconds
       |- ProviderTimeoutError      no answer in time
       |- ProviderUnavailableError  the provider is down or cannot be reached; retry
       `- ProviderMalformedError    an answer came that is not one: bad JSON, no choices, a cut stream

Every class takes its message first and its facts as optional keywords, and survives pickling with them.
The original error stays on this side of a process boundary, as `__cause__`.
"""

from __future__ import annotations

from typing import Any

from runtime_core.errors import AgentflowError


class LLMHubRuntimeError(AgentflowError):
    """Base of everything that this package raises on purpose."""


class ConfigError(LLMHubRuntimeError):
    """The configuration cannot be used.

    `path` is the file, `line` counts from 1, `key` is a dotted path such as `roles.llm.chat.model`: the place
    of the first problem. `problems` holds one sentence for each problem, in the order of the file.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        line: int | None = None,
        key: str | None = None,
        problems: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.path = path
        self.line = line
        self.key = key
        self.problems = problems or (message,)


class UnknownRoleError(LLMHubRuntimeError):
    """The configuration has no such role and no `defaults`; `known` lists the roles it has."""

    def __init__(self, message: str, *, role: str | None = None, known: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.role = role
        self.known = known


class UnknownProviderError(LLMHubRuntimeError):
    """A provider that is not under `providers`, or that any-llm does not know and that has no `api_base`."""

    def __init__(self, message: str, *, provider: str | None = None, role: str | None = None) -> None:
        super().__init__(message)
        self.provider = provider
        self.role = role


class EnvVarMissingError(LLMHubRuntimeError):
    """`names` are the environment variables that are not set or empty: all of them."""

    def __init__(self, message: str, *, names: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.names = names


class ModeMismatchError(LLMHubRuntimeError):
    """The role's `mode` is not the one that the call needs."""

    def __init__(
        self, message: str, *, role: str | None = None, mode: str | None = None, wanted: str | None = None
    ) -> None:
        super().__init__(message)
        self.role = role
        self.mode = mode
        self.wanted = wanted


class UnsupportedModeError(ModeMismatchError):
    """The role is valid, but this version has no call for its mode."""


class HubClosedError(LLMHubRuntimeError):
    """The hub was closed before or during the call."""


class UnmeteredCallError(LLMHubRuntimeError):
    """Inside a served flow every model call passes the engine; `flow` is the flow's app."""

    def __init__(self, message: str, *, flow: str | None = None) -> None:
        super().__init__(message)
        self.flow = flow


class StreamAbandonedError(LLMHubRuntimeError):
    """What the after-hook sees when the consumer of a stream stopped before its end."""


class ProviderCallError(LLMHubRuntimeError):
    """A call that reached, or should have reached, a provider failed.

    `status` is the HTTP status if there was one, `code` the provider's own word for the failure
    (`insufficient_quota`, `context_length`, ...), `retry_after` the seconds that it asked us to wait. `not_sent`
    says that the provider never saw the request: it could not be reached. `usage` is any-llm's token count of a
    response that is no answer, where it has one.
    """

    def __init__(
        self,
        message: str,
        *,
        role: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        status: int | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        not_sent: bool = False,
        usage: Any = None,
    ) -> None:
        super().__init__(message)
        self.role = role
        self.provider = provider
        self.model = model
        self.status = status
        self.code = code
        self.retry_after = retry_after
        self.not_sent = not_sent
        self.usage = usage


class ProviderAuthError(ProviderCallError):
    """The key is missing or refused, or the account has no credit."""


class ProviderBadRequestError(ProviderCallError):
    """The provider, or any-llm before it, refused the request as it is."""


class ProviderRateLimitError(ProviderCallError):
    """Too many requests or tokens; `retry_after` says for how long, when the provider said so."""


class ProviderTimeoutError(ProviderCallError):
    """The provider did not answer within the role's `timeout_s`, or its gateway gave up (408, 504)."""


class ProviderUnavailableError(ProviderCallError):
    """The provider cannot be reached or answered with a fault of its own (5xx)."""


class ProviderMalformedError(ProviderCallError):
    """The provider answered with something that is not an answer; never taken for success."""
