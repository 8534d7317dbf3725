"""The container of an InferenceService in front of a RayService: passes every request on, and every answer back.

Status, body and streams stay as they are. Headers that steer Ray Serve or claim an identity do not pass. Start it with
`python -m agentflow_serve.gateway --upstream http://NAME-serve-svc:8000`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from agentflow_serve.reply import Receive, Send
from agentflow_serve.request_headers import RawHeaders, lowered, without_control

if TYPE_CHECKING:
    import httpx

ALIVE = "/-/alive"
"""The gateway's own; every other path is the service's."""
DRAIN_S = 60
MAX_CONNECTIONS = 1000
_ONE_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)


class Gateway:
    """An ASGI application. `client` stays its maker's to close; its base URL is where requests go."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == ALIVE:
            await _answer(send, 200, {"alive": True})
            return
        body = _Body(receive, has_body=_has_body(scope["headers"]))
        exchange = asyncio.create_task(self._exchange(scope, body, send))
        watch = asyncio.create_task(body.wait_until_left())
        try:
            await asyncio.wait({exchange, watch}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (exchange, watch):
                task.cancel()
            await asyncio.gather(exchange, watch, return_exceptions=True)
        if not exchange.cancelled() and (broken := exchange.exception()) is not None:
            raise broken  # the server cuts the connection, so that nobody takes half an answer for a whole one

    async def _exchange(self, scope: Any, body: _Body, send: Send) -> None:
        import httpx

        try:
            response = await self._client.send(self._request(scope, body), stream=True)
        except _ClientLeft:
            return
        except httpx.TimeoutException:
            await _answer(send, 504, _error("The service did not answer in time.", "upstream_timeout"))
            return
        except httpx.TransportError:
            refusal = _error("The service cannot be reached now; try again.", "unavailable")
            await _answer(send, 503, refusal, ((b"retry-after", b"1"),))
            return
        try:
            await _relay(response, send)
        finally:
            await response.aclose()

    def _request(self, scope: Any, body: _Body) -> httpx.Request:
        import httpx

        target = scope.get("raw_path") or scope["path"].encode()
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        headers = [(name, value) for name, value in without_control(lowered(scope["headers"])) if name not in _ONE_HOP]
        return httpx.Request(
            scope["method"],
            self._client.base_url.copy_with(raw_path=target),
            headers=headers,
            content=body.parts() if body.has_body else None,
            extensions={"timeout": self._client.timeout.as_dict()},
        )


async def _relay(response: httpx.Response, send: Send) -> None:
    headers = [(name.lower(), value) for name, value in response.headers.raw if name.lower() not in _ONE_HOP]
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    async for part in response.aiter_raw():
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


class _ClientLeft(Exception):
    """The client went away before its request was read."""


class _Body:
    """What the client sends, part by part, and then that it has left."""

    def __init__(self, receive: Receive, *, has_body: bool) -> None:
        self.has_body = has_body
        self._receive = receive
        self._read = asyncio.Event()
        if not has_body:
            self._read.set()

    async def parts(self) -> AsyncIterator[bytes]:
        while not self._read.is_set():
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise _ClientLeft
            if not message.get("more_body"):
                self._read.set()
            yield message.get("body", b"")

    async def wait_until_left(self) -> None:
        await self._read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _has_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in lowered(headers))


def _error(sentence: str, code: str) -> dict[str, Any]:
    return {"error": sentence, "code": code, "node": None, "trace_id": None, "retry_after": None}


async def _answer(send: Send, status: int, body: object, headers: RawHeaders | tuple[Any, ...] = ()) -> None:
    text = json.dumps(body).encode()
    own = [(b"content-type", b"application/json"), (b"content-length", str(len(text)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": own})
    await send({"type": "http.response.body", "body": text})


async def serve(upstream: str, *, host: str, port: int, timeout_s: float) -> None:
    """Listen until a signal ends it; what is in flight then may finish."""
    import httpx
    import uvicorn

    limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=100)
    timeout = httpx.Timeout(timeout_s, connect=5.0)
    async with httpx.AsyncClient(base_url=upstream, limits=limits, timeout=timeout, trust_env=False) as client:
        config = uvicorn.Config(
            Gateway(client),
            host=host,
            port=port,
            lifespan="off",
            log_level="warning",
            date_header=False,
            server_header=False,
            timeout_graceful_shutdown=DRAIN_S,
        )
        await uvicorn.Server(config).serve()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m agentflow_serve.gateway", description="Pass requests on.")
    parser.add_argument(
        "--upstream", required=True, help="the service of the RayService, such as http://desk-serve-svc:8000"
    )
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--timeout", type=float, default=65.0, help="seconds to wait for a part of an answer")
    given = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(given.upstream, host=given.host, port=given.port, timeout_s=given.timeout))


if __name__ == "__main__":
    main()
