"""From the arguments of an http operation to a request that is safe to send."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import httpx

from flow_runtime.errors import OperationFailed

Header = tuple[bytes, bytes]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_HOST = re.compile(rb"[A-Za-z0-9._:-]+")
_OURS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that say how a message travels; a flow that could set them could smuggle a second one."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """`origin` is what messages may show of the address: paths and queries can hold secrets."""

    method: str
    scheme: str
    host: str
    port: int
    netloc: bytes
    target: bytes
    headers: tuple[Header, ...]
    body: bytes

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.netloc.decode('ascii')}"


def build_request(method: str, args: Mapping[str, Any], *, largest_body: int) -> HttpRequest:
    """Raises OperationFailed; its message holds no value of a header and no part of the url."""
    url = _url(args["url"])
    headers = _headers(args.get("headers") or {})
    body, media = _body(args.get("body"))
    if len(body) > largest_body:
        raise OperationFailed(f"the body has {len(body)} bytes; at most {largest_body} may be sent")
    given = {name.lower() for name, _ in headers}
    ours = [(b"accept-encoding", b"identity"), (b"host", url.netloc)]
    if b"user-agent" not in given:
        ours.append((b"user-agent", b"agentflow-serve"))
    if media is not None and b"content-type" not in given:
        ours.append((b"content-type", media))
    return HttpRequest(
        method=method,
        scheme=url.scheme,
        host=url.raw_host.decode("ascii"),
        port=_port(url),
        netloc=url.netloc,
        target=url.raw_path,
        headers=(*ours, *headers),
        body=body,
    )


def _url(value: Any) -> httpx.URL:
    if not isinstance(value, str):
        raise OperationFailed("the url must be a text")
    if "\\" in value or value != value.strip():
        raise OperationFailed("the url holds a backslash, or spaces at its ends")
    if any(unquote(part) in (".", "..") for part in re.split(r"[?#]", value)[0].split("/")):
        # a value filled into a path must not climb out of it
        raise OperationFailed("the url's path holds '.' or '..'")
    try:
        url = httpx.URL(value)
    except (httpx.InvalidURL, UnicodeError) as exc:
        raise OperationFailed("the url is not one that can be called") from exc
    if not url.is_absolute_url or not url.raw_host:
        raise OperationFailed("the url must be absolute, such as https://api.example.com/items")
    if not _HOST.fullmatch(url.raw_host) or not 0 < _port(url) < 65_536:
        raise OperationFailed("the url's host or port is not one that can be called")
    if url.userinfo:
        raise OperationFailed("the url holds credentials; send them in a header")
    return url


def _port(url: httpx.URL) -> int:
    if url.port is not None:
        return url.port
    return 80 if url.scheme == "http" else 443


def _headers(value: Any) -> tuple[Header, ...]:
    if not isinstance(value, Mapping):
        raise OperationFailed("headers must be an object of names and values")
    headers: list[Header] = []
    for name, text in value.items():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise OperationFailed("a header's name holds characters that no name may have")
        if name.lower() in _OURS or name.lower().startswith("proxy-"):
            raise OperationFailed(f"the header {name} is set by the server and not by a flow")
        if isinstance(text, bool) or not isinstance(text, (str, int, float)):
            raise OperationFailed(f"the header {name} must be a text or a number")
        if not _VALUE.fullmatch(str(text)):
            raise OperationFailed(f"the header {name} holds a line break or another forbidden character")
        headers.append((name.encode("ascii"), str(text).strip().encode("latin-1")))
    return tuple(headers)


def _body(value: Any) -> tuple[bytes, bytes | None]:
    """The bytes of a body and their media type: text as it is, anything else as JSON."""
    if value is None:
        return b"", None
    try:
        if isinstance(value, str):
            return value.encode("utf-8"), b"text/plain; charset=utf-8"
        return json.dumps(value, allow_nan=False).encode("ascii"), b"application/json"
    except (TypeError, ValueError, RecursionError) as exc:
        raise OperationFailed("the body cannot be written as JSON or UTF-8 text") from exc
