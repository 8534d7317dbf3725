"""Reads a request body within its limits and refuses the JSON that no parser here should meet."""

from __future__ import annotations

import re
from email.message import Message
from typing import Any

from agentflow_serve import request_headers
from agentflow_serve.errors import RequestRefused
from agentflow_serve.json_text import is_deeper, looseness
from agentflow_serve.limits import EdgeLimits

_DIGITS = re.compile(r"[0-9]{1,12}")


class ClientLeft(Exception):
    """The client closed the connection before the whole body was here."""


async def read_body(receive: Any, headers: request_headers.RawHeaders, *, limits: EdgeLimits) -> bytes:
    """The whole body, never holding more than the limit and one chunk.

    A body that says in advance that it is too large is refused unread.
    Raises RequestRefused (413), ClientLeft.
    """
    declared = request_headers.values(headers, b"content-length")
    if declared and _DIGITS.fullmatch(declared[0]) and int(declared[0]) > limits.max_body_bytes:
        raise _too_large(limits)
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        body += message.get("body", b"")
        if len(body) > limits.max_body_bytes:
            raise _too_large(limits)
        more = message.get("more_body", False)
    return bytes(body)


def check_json(body: bytes, *, path: str, headers: request_headers.RawHeaders, limits: EdgeLimits) -> None:
    """Raises RequestRefused (400) for JSON that nests too deep or that only Python takes for JSON.

    Text that is no JSON at all passes: the endpoint says what is wrong with it in kserve's own words.
    """
    is_infer = path.endswith("/infer")
    is_json = _is_json(headers)
    text = body if is_json or not is_infer else _json_part(body, headers)
    if is_deeper(text, than=limits.max_json_depth):
        raise RequestRefused(
            f"The request body nests more than {limits.max_json_depth} levels deep; send a flatter one.",
            status=400,
            code="too_deep",
        )
    # FastAPI reads V2 bodies with Python's lenient parser; V1 and binary V2 go through orjson: strict.
    reason = looseness(body) if is_infer and is_json and body else None
    if reason is not None:
        raise RequestRefused(f"The request body is not strict JSON: {reason}.", status=400, code="bad_json")


def _json_part(body: bytes, headers: request_headers.RawHeaders) -> bytes:
    """The JSON in front of raw tensors; the whole body where its length is not known."""
    length = request_headers.values(headers, b"inference-header-content-length")
    return body[: int(length[0])] if len(length) == 1 and _DIGITS.fullmatch(length[0]) else body


def _is_json(headers: request_headers.RawHeaders) -> bool:
    """FastAPI's own rule for a body that it parses as JSON."""
    given = request_headers.values(headers, b"content-type")[:1]
    if given == ["application/json"]:
        return True
    message = Message()
    for content_type in given:
        message["content-type"] = content_type
    subtype = message.get_content_subtype()
    return message.get_content_maintype() == "application" and (subtype == "json" or subtype.endswith("+json"))


def _too_large(limits: EdgeLimits) -> RequestRefused:
    return RequestRefused(
        f"The request body is larger than {limits.max_body_bytes} bytes; send less, or raise max_body_bytes.",
        status=413,
        code="body_too_large",
    )
