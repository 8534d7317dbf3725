"""Every foreign failure of a model call becomes one of our own errors, here and nowhere else.

`verdict` decides which one; this module writes it: one sentence that says which role, provider and model it is
about and where to look, without the key and without the words of the user or the model.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import datetime

from pydantic import ValidationError

from .endpoints import Endpoint
from .errors import (
    LLMHubRuntimeError,
    ProviderAuthError,
    ProviderBadRequestError,
    ProviderCallError,
    ProviderMalformedError,
    ProviderRateLimitError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from .models import ResolvedCall
from .retry_after import find_retry_after
from .verdict import causes_of, judge, never_sent

_MAX_DETAIL = 300

_WHAT_HAPPENED: dict[type[ProviderCallError], str] = {
    ProviderAuthError: "refused the key or the account",
    ProviderBadRequestError: "refused the request",
    ProviderRateLimitError: "is asked too often",
    ProviderTimeoutError: "did not answer in time",
    ProviderUnavailableError: "is not available",
    ProviderMalformedError: "sent something that is not an answer",
}


@contextmanager
def translated(
    call: ResolvedCall,
    *,
    now: Callable[[], datetime],
    endpoint: Endpoint | None = None,
    reading: bool = False,
) -> Generator[None]:
    """Around foreign code: its failures leave as ProviderCallError; ours and cancellation pass unchanged."""
    try:
        yield
    except LLMHubRuntimeError:
        raise
    except Exception as exc:
        raise classify(exc, call, now=now(), endpoint=endpoint, reading=reading) from exc


def classify(
    exc: BaseException,
    call: ResolvedCall,
    *,
    now: datetime,
    endpoint: Endpoint | None = None,
    reading: bool = False,
) -> ProviderCallError:
    """Our error for a foreign one.

    `now` turns a Retry-After date into seconds, the endpoint's key is kept out of the text, and while
    `reading` a stream a broken connection is a cut answer.
    """
    causes = causes_of(exc)
    verdict = judge(causes, reading=reading)
    retryable = verdict.kind in (ProviderRateLimitError, ProviderUnavailableError)
    return call_error(
        verdict.kind,
        call,
        detail=_detail(causes, endpoint) + _hint(verdict.kind, endpoint),
        status=verdict.status,
        code=verdict.code,
        retry_after=find_retry_after(causes, now) if retryable else None,
        not_sent=verdict.status is None and not reading and never_sent(causes),
    )


def call_error(
    kind: type[ProviderCallError],
    call: ResolvedCall,
    *,
    detail: str,
    status: int | None = None,
    code: str | None = None,
    retry_after: float | None = None,
    not_sent: bool = False,
) -> ProviderCallError:
    """An error that says which role, provider and model it is about."""
    shown_status = f" ({status})" if status else ""
    return kind(
        f"Role '{call.role}': provider '{call.provider}', model '{call.model}', "
        f"{_WHAT_HAPPENED[kind]}{shown_status}: {detail}",
        role=call.role,
        provider=call.provider,
        model=call.model,
        status=status,
        code=code,
        retry_after=retry_after,
        not_sent=not_sent,
    )


def _detail(causes: Sequence[BaseException], endpoint: Endpoint | None) -> str:
    """What the outermost failure says and, where it hides it, what the innermost says: `Connection error.`"""
    text = _sentence(causes[0])
    inner = _sentence(causes[-1])
    if inner not in text:
        text = f"{text} ({inner})"
    if endpoint is not None and endpoint.api_key:
        text = text.replace(endpoint.api_key, "***")
    return text if len(text) <= _MAX_DETAIL else f"{text[:_MAX_DETAIL]}..."


def _hint(kind: type[ProviderCallError], endpoint: Endpoint | None) -> str:
    """Where to look first."""
    if endpoint is None:
        return ""
    if kind is ProviderAuthError and endpoint.key_name:
        return f" [key from {endpoint.key_name}]"
    if kind in (ProviderUnavailableError, ProviderTimeoutError) and endpoint.api_base:
        return f" [at {endpoint.api_base}]"
    return ""


def _sentence(exc: BaseException) -> str:
    if isinstance(exc, ValidationError):
        # pydantic's own text repeats the values, which are the user's or the model's words.
        first = exc.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    message = getattr(exc, "message", None)
    text = message if isinstance(message, str) else str(exc)
    return " ".join(text.split()) or type(exc).__name__
