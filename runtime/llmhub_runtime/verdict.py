"""Which of our errors a foreign failure is.

Failures arrive as any-llm's errors, as the SDK's or HTTP client's that leak through it, or as whatever Python
raises on an answer of the wrong shape. The HTTP status decides where there is one; then what broke (time, the
connection, the answer); any-llm's own guess, which reads the message, comes last. Foreign classes are known
by name, so nothing heavy is imported and a vendored copy of an HTTP client counts too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from traceback import walk_tb
from typing import Any

from .errors import (
    ProviderAuthError,
    ProviderBadRequestError,
    ProviderCallError,
    ProviderMalformedError,
    ProviderRateLimitError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)

CUT = "cut_stream"
"""The `code` of an answer that stopped before its end."""

_MAX_CAUSES = 8

_TIMEOUTS = frozenset({"TimeoutError", "TimeoutException", "APITimeoutError"})
_UNREADABLE = frozenset({"JSONDecodeError", "UnicodeDecodeError", "DecodingError", "APIResponseValidationError"})
_UNREACHABLE = frozenset({"TransportError", "APIConnectionError", "OSError", "InvalidURL"})
_NOT_SENT = frozenset(
    {"ConnectError", "ConnectTimeout", "PoolTimeout", "ConnectionRefusedError", "gaierror", "InvalidURL"}
)
"""The connection was never made, so the provider never saw the request."""
_WRONG_SHAPE = frozenset({"ValueError", "TypeError", "LookupError", "AttributeError", "AssertionError"})
"""Looked for last: a refused TLS certificate is a ValueError too."""

_BY_STATUS: dict[int, tuple[type[ProviderCallError], str | None]] = {
    401: (ProviderAuthError, None),
    402: (ProviderAuthError, "insufficient_funds"),
    403: (ProviderAuthError, None),
    404: (ProviderBadRequestError, "not_found"),
    408: (ProviderTimeoutError, None),
    409: (ProviderUnavailableError, "conflict"),
    425: (ProviderUnavailableError, "too_early"),
    429: (ProviderRateLimitError, None),
    504: (ProviderTimeoutError, None),
}
BY_ANY_LLM_CLASS: dict[str, tuple[type[ProviderCallError], str | None]] = {
    "MissingApiKeyError": (ProviderAuthError, "missing_key"),
    "AuthenticationError": (ProviderAuthError, None),
    "InsufficientFundsError": (ProviderAuthError, "insufficient_funds"),
    "RateLimitError": (ProviderRateLimitError, None),
    "ContextLengthExceededError": (ProviderBadRequestError, "context_length"),
    "ContentFilterError": (ProviderBadRequestError, "content_filter"),
    "LengthFinishReasonError": (ProviderMalformedError, "length"),
    "ContentFilterFinishReasonError": (ProviderBadRequestError, "content_filter"),
    "ModelNotFoundError": (ProviderBadRequestError, "not_found"),
    "UnsupportedParameterError": (ProviderBadRequestError, "unsupported_parameter"),
    "InvalidRequestError": (ProviderBadRequestError, None),
    "GatewayTimeoutError": (ProviderTimeoutError, None),
    "UpstreamProviderError": (ProviderUnavailableError, None),
}
_LAST_RESORT: dict[str, tuple[type[ProviderCallError], str | None]] = {
    # any-llm's own verdict on an answer without id, choices and model: nothing below it failed.
    "ProviderError": (ProviderMalformedError, "empty"),
}
_BUILDING_REQUEST = frozenset(
    {
        "prepare_tools",
        "_convert_completion_params",
        "_convert_embedding_params",
        "_convert_messages",
        "_convert_params",
        "_convert_response_format",
        "_convert_tool_calls",
        "_copy_messages",
        "_copy_tools",
        "async_maybe_transform",
        "_build_request",
        "encode_request",
    }
)
"""Functions of any-llm and the SDKs that run before anything is sent: what fails in them is the caller's."""

_BAD_CALL = re.compile(
    r"unexpected keyword argument|multiple values for (keyword )?argument|missing \d+ required|"
    r"takes (from \d+ to )?\d+ positional"
)
"""Python's wording when a parameter does not exist: the caller's mistake, not the answer's."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The kind of error, the HTTP status if there was one, and a word for the failure."""

    kind: type[ProviderCallError]
    status: int | None = None
    code: str | None = None


def causes_of(exc: BaseException) -> list[BaseException]:
    """The failure and what is known of what caused it, outermost first."""
    causes: list[BaseException] = []
    waiting: list[BaseException] = [exc]
    while waiting and len(causes) < _MAX_CAUSES:
        current = waiting.pop(0)
        if current in causes:
            continue
        causes.append(current)
        inner = (getattr(current, "original_exception", None), current.__cause__)
        waiting.extend(cause for cause in inner if isinstance(cause, BaseException))
    return causes


def judge(causes: Sequence[BaseException], *, reading: bool) -> Verdict:
    """The verdict on a failure and its causes; `reading` a stream, a broken connection is a cut answer."""
    code = next((c for c in (getattr(cause, "code", None) for cause in causes) if isinstance(c, str)), None)
    guess = _guess(causes)
    status = _status(causes)
    if status is not None and status >= 400:
        kind, own_code = _from_status(status, guess)
        if code == "insufficient_quota":
            kind = ProviderAuthError
        return Verdict(kind, status, code or own_code)
    if _any_named(causes, _TIMEOUTS):
        return Verdict(ProviderTimeoutError, code=code)
    if any(_is_bad_call(cause) for cause in causes):
        return Verdict(ProviderBadRequestError, code=code)
    if _any_named(causes, _UNREADABLE):
        return Verdict(ProviderMalformedError, status, code)
    if _any_named(causes, _UNREACHABLE):
        return Verdict(ProviderMalformedError, code=CUT) if reading else Verdict(ProviderUnavailableError, code=code)
    if _any_named(causes, _WRONG_SHAPE):
        return Verdict(ProviderMalformedError, status, code)
    kind, own_code = guess or _LAST_RESORT.get(type(causes[-1]).__name__, (ProviderUnavailableError, None))
    return Verdict(kind, status, code or own_code)


def never_sent(causes: Sequence[BaseException]) -> bool:
    """Whether the request surely never reached the provider."""
    return _any_named(causes, _NOT_SENT) or any(_is_bad_call(cause) for cause in causes)


def _from_status(
    status: int, guess: tuple[type[ProviderCallError], str | None] | None
) -> tuple[type[ProviderCallError], str | None]:
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return ProviderUnavailableError, None
    # Some providers call a bad key or a full context a 400; any-llm read the message.
    return guess or (ProviderBadRequestError, None)


def _guess(causes: Sequence[BaseException]) -> tuple[type[ProviderCallError], str | None] | None:
    for cause in causes:
        for name in _names(cause):
            if name in BY_ANY_LLM_CLASS:
                return BY_ANY_LLM_CLASS[name]
    return None


def _is_bad_call(exc: BaseException) -> bool:
    """The request never left: a parameter that does not exist, has the wrong type, or is not offered."""
    if isinstance(exc, NotImplementedError) or getattr(exc, "title", None) == "CompletionParams":
        return True
    if isinstance(exc, TypeError) and _BAD_CALL.search(str(exc)):
        return True
    frames = (frame.f_code.co_name for frame, _ in walk_tb(exc.__traceback__))
    return not _WRONG_SHAPE.isdisjoint(_names(exc)) and not _BUILDING_REQUEST.isdisjoint(frames)


def _names(exc: BaseException) -> list[str]:
    return [cls.__name__ for cls in type(exc).__mro__]


def _any_named(causes: Sequence[BaseException], names: frozenset[str]) -> bool:
    return any(not names.isdisjoint(_names(cause)) for cause in causes)


def _status(causes: Sequence[BaseException]) -> int | None:
    for cause in causes:
        for holder in (cause, getattr(cause, "response", None)):
            status: Any = getattr(holder, "status_code", None)
            if isinstance(status, int) and not isinstance(status, bool) and status > 0:
                return status
    return None
