"""What the headers of a request may say to a predictor, and what they may not.

Serve's proxy and other servers take orders from headers (timeouts, routing, identity). A client is none of
them: those headers are dropped before anything of ours can read them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from itertools import chain

from agentflow_serve.errors import RequestRefused
from agentflow_serve.limits import EdgeLimits

RawHeaders = list[tuple[bytes, bytes]]
"""Headers as ASGI has them, with names in lower case."""

CONTROL_HEADERS = frozenset(
    {
        b"x-request-timeout-seconds",
        b"x-request-disconnect-disabled",
        b"serve-multiplexed-model-id",
        b"x-session-id",
        b"x-scope-id",
        b"x-tenant-id",
        b"x-user",
        b"x-user-id",
        b"x-principal-id",
        b"x-real-ip",
        b"remote-user",
        b"forwarded",
    }
)
_CONTROL_PREFIXES = (b"x-serve-router-", b"x-forwarded-", b"x-auth-request-")
CREDENTIALS = frozenset({b"authorization", b"proxy-authorization", b"x-api-key", b"cookie"})
_TRAVELS = frozenset({b"x-request-id", b"traceparent", b"tracestate"})

# agentflow's TRACE_ID, with room for the index that each run of a batch adds
_TRACE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,12})?(?:[eE][+-]?[0-9]{1,3})?")
_PRINTABLE = re.compile(r"[\x21-\x7e]{1,255}")
_TEXT = re.compile(r"[\x20-\x7e]{1,512}")


def lowered(headers: Iterable[tuple[bytes, bytes]]) -> RawHeaders:
    """The headers with names in lower case, as ASGI wants them and not every server sends them."""
    return [(name.lower(), value) for name, value in headers]


def values(headers: RawHeaders, name: bytes) -> list[str]:
    """Every value of one header, in order. `name` in lower case."""
    return [value.decode("latin-1").strip() for key, value in headers if key == name]


def check_size(headers: RawHeaders, *, limits: EdgeLimits) -> None:
    """Raises RequestRefused (431) where there are too many headers or too much in them."""
    size = len(b"".join(chain.from_iterable(headers)))
    if len(headers) > limits.max_headers or size > limits.max_header_bytes:
        raise RequestRefused(
            f"The request has {len(headers)} headers of {size} bytes; at most {limits.max_headers} headers "
            f"and {limits.max_header_bytes} bytes are accepted.",
            status=431,
            code="headers_too_large",
        )


def check_encoding(headers: RawHeaders) -> None:
    """Raises RequestRefused (415) for a compressed body: its size says nothing about what is in it."""
    codings = {part.strip().lower() for value in values(headers, b"content-encoding") for part in value.split(",")}
    if codings - {"", "identity"}:
        raise RequestRefused(
            "The request body is compressed; send it without Content-Encoding.",
            status=415,
            code="unsupported_encoding",
        )


def trace_id(headers: RawHeaders) -> str | None:
    """The client's own trace id, from `x-trace-id` or W3C `traceparent`; None where there is no valid one."""
    given = values(headers, b"x-trace-id")
    if len(given) == 1 and _TRACE_ID.fullmatch(given[0]):
        return given[0]
    parents = values(headers, b"traceparent")
    match = _TRACEPARENT.fullmatch(parents[0]) if len(parents) == 1 else None
    return match[1] if match else None


def deadline_s(headers: RawHeaders, *, limit_s: float) -> float:
    """How long the request may take: `limit_s`, or less where `x-deadline-seconds` says so.

    Raises RequestRefused (400) where that header is anything but one positive number.
    """
    given = values(headers, b"x-deadline-seconds")
    if not given:
        return limit_s
    seconds = float(given[0]) if len(given) == 1 and _NUMBER.fullmatch(given[0]) else math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise RequestRefused(
            "The header x-deadline-seconds must be one positive number of seconds.",
            status=400,
            code="bad_header",
        )
    return min(seconds, limit_s)


def idempotency_key(headers: RawHeaders) -> str | None:
    """The `Idempotency-Key`. Raises RequestRefused (400) unless it is 1 to 255 visible ASCII characters."""
    given = values(headers, b"idempotency-key")
    if not given:
        return None
    if len(given) > 1 or not _PRINTABLE.fullmatch(given[0]):
        raise RequestRefused(
            "The header Idempotency-Key must be given once, with 1 to 255 visible ASCII characters.",
            status=400,
            code="bad_header",
        )
    return given[0]


def travelling(headers: RawHeaders) -> dict[str, str]:
    """The headers that go with a run to its nodes; one that could not be sent on unchanged stays behind."""
    found = {name: values(headers, name) for name, _ in headers if name in _TRAVELS}
    return {name.decode(): given[0] for name, given in found.items() if len(given) == 1 and _TEXT.fullmatch(given[0])}


def for_application(headers: RawHeaders) -> RawHeaders:
    """The headers that the application may see: no control, and no credential, which ends at the edge."""
    return [(name, value) for name, value in headers if name not in CREDENTIALS and not _is_control(name)]


def without_control(headers: RawHeaders) -> RawHeaders:
    """The headers that may pass: none that steers Serve or claims an identity."""
    return [(name, value) for name, value in headers if not _is_control(name)]


def _is_control(name: bytes) -> bool:
    name = name.replace(b"_", b"-")
    return name in CONTROL_HEADERS or name.startswith(_CONTROL_PREFIXES)
