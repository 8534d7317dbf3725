"""http.get and http.post.

The value is the answer's body: parsed where the server says that it is JSON, else its text, and null where it
is empty. A status other than 2xx is a failure that carries the status. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import codecs
import json
from collections.abc import Mapping
from email.message import Message
from types import MappingProxyType
from typing import Any, NoReturn

from agentflow.placeholders import compile_args
from flow_runtime.errors import OperationFailed, OperationTimeout
from flow_runtime.operations.base import OperationBinding, OperationCall, OperationFactory
from flow_runtime.operations.egress import Egress
from flow_runtime.operations.http_client import HttpAnswer, HttpClient
from flow_runtime.operations.http_request import HttpRequest, build_request

# the decoders of some others take time that grows with the square of the text
CHARSETS = frozenset({"utf-8", "ascii", "iso8859-1", "iso8859-15", "cp1252", "utf-16"})


class HttpOperation:
    """One method, with the arguments `url`, `headers`, `body` (JSON or text) and `timeout_ms`."""

    def __init__(self, method: str, binding: OperationBinding) -> None:
        self._op = binding.op
        self._method = method
        self._settings = binding.settings
        self._resources = binding.resources
        self._args = compile_args(dict(binding.args), binding.names)

    async def run(self, values: Mapping[str, Any], call: OperationCall) -> Any:
        args = self._args.resolve(values)
        try:
            limit_s = self._limit_s(args.get("timeout_ms"), call.deadline_s)
            largest = self._settings.http_max_request_bytes
            request = build_request(self._method, args, largest_body=largest)
            return _value(request.origin, await self._send(request, limit_s))
        except OperationFailed as exc:
            exc.op = self._op
            raise

    async def _send(self, request: HttpRequest, limit_s: float) -> HttpAnswer:
        try:
            async with asyncio.timeout(limit_s):
                return await self._client().send(request)
        except TimeoutError as exc:
            message = f"{request.origin} did not answer within {limit_s:g} s"
            raise OperationTimeout(message, timeout_s=limit_s) from exc

    def _client(self) -> HttpClient:
        settings, resolve = self._settings, self._resources.resolve
        return self._resources.shared(
            (HttpClient, settings), lambda: HttpClient(settings, Egress(settings.allow_hosts, resolve))
        )

    def _limit_s(self, timeout_ms: Any, deadline_s: float | None) -> float:
        limits = [self._settings.http_timeout_s]
        if timeout_ms is not None:
            if isinstance(timeout_ms, bool) or not isinstance(timeout_ms, (int, float)) or not timeout_ms > 0:
                raise OperationFailed("timeout_ms must be a number above 0")
            limits = [timeout_ms / 1000]
        if deadline_s is not None:
            limits.append(deadline_s)
        return min(limits)


def _value(origin: str, answer: HttpAnswer) -> Any:
    if 300 <= answer.status < 400:
        message = f"{origin} answered {answer.status}; redirects are not followed, so name the final address"
        raise OperationFailed(message, status=answer.status)
    if not 200 <= answer.status < 300:
        raise OperationFailed(f"{origin} answered {answer.status}", status=answer.status)
    if not answer.body:
        return None
    declared = Message()
    declared["content-type"] = answer.content_type or "text/plain"
    media = declared.get_content_type()
    if media == "application/json" or media.endswith("+json"):
        return _json(origin, answer)
    return _text(origin, answer, declared.get_content_charset("utf-8"))


def _json(origin: str, answer: HttpAnswer) -> Any:
    try:
        return json.loads(answer.body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as exc:
        message = f"{origin} answered {answer.status} with a body that is not JSON although it says so"
        raise OperationFailed(message, status=answer.status) from exc


def _text(origin: str, answer: HttpAnswer, charset: str) -> str:
    try:
        if codecs.lookup(charset).name in CHARSETS:
            return answer.body.decode(charset)
    except (LookupError, ValueError):
        pass
    raise OperationFailed(f"{origin} answered {answer.status} with a body that is no text", status=answer.status)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


FACTORIES: Mapping[str, OperationFactory] = MappingProxyType(
    {
        "http.get": lambda binding: HttpOperation("GET", binding),
        "http.post": lambda binding: HttpOperation("POST", binding),
    }
)
