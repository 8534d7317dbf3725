"""One HTTP exchange, with what ASGI itself lacks: noticing that the client left, and hanging up on it.

Hanging up needs the transport, which the server offers in the scope under HANG_UP (see server.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, NoReturn

from llmhub_runtime.sim.errors import SimBadRequest

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

HANG_UP = "agentflow_sim.hang_up"
_MAX_BODY = 64 << 20


class ClientGone(Exception):
    """The client closed the connection before the answer was complete."""


class Channel:
    """Use as `async with`; leaving it ends the watch on the client."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Channel:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])

    async def read(self) -> bytes:
        """The request's body. Raises ClientGone, or SimBadRequest when it is too long."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part = message.get("body", b"")
            size += len(part)
            if size > _MAX_BODY:
                raise SimBadRequest(f"The request is longer than {_MAX_BODY} bytes.", status=413)
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    async def start(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        raw = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, data: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def pause(self, seconds: float) -> None:
        """Let time pass (0 lets others run). Raises ClientGone as soon as the client is gone."""
        watch = self._watching()
        if seconds > 0:
            await asyncio.wait([watch], timeout=seconds)
        else:
            await asyncio.sleep(0)
        if watch.done():
            raise ClientGone

    async def until_gone(self) -> NoReturn:
        await asyncio.wait([self._watching()])
        raise ClientGone

    async def hang_up(self, *, reset: bool) -> None:
        """Close the connection now: with a TCP reset, or after what was written has been sent."""
        close = self._scope.get("extensions", {}).get(HANG_UP)
        if close is None:
            raise ConnectionAbortedError("The simulated model hangs up.")
        close(reset=reset)
        await asyncio.wait([self._watching()])

    def _watching(self) -> asyncio.Task[None]:
        if self._watch is None:
            self._watch = asyncio.create_task(self._until_disconnect())
        return self._watch

    async def _until_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
