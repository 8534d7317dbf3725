"""The way out of one request: every answer leaves with the trace id on it, and only one answer leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from agentflow_serve.errors import PredictorError, RequestRefused, answer_of

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# How much of an unwanted body is read and dropped, so that its sender gets to see the refusal.
LINGER_S = 1.0
LINGER_BYTES = 8 * 1024 * 1024


class Reply:
    """An ASGI `send` for the application; deaf once the edge has answered in the application's place."""

    def __init__(self, send: Send, *, trace_id: str) -> None:
        self._send = send
        self.trace_id = trace_id
        self.started = False
        self.complete = False
        self.body_was_read = False
        self._closed = False

    async def __call__(self, message: Message) -> None:
        if not self._closed:
            await self._pass_on(message)

    def close(self) -> None:
        self._closed = True

    async def error(self, error: PredictorError) -> None:
        """Answers with `error`, unless an answer is already on its way; then nothing can be added to it."""
        self.close()
        if self.started:
            return
        head, body = self._render(error)
        await self._pass_on(head)
        await self._pass_on({"type": "http.response.body", "body": body})

    async def refuse(self, refusal: RequestRefused, receive: Receive) -> None:
        """Answers with `refusal`, then drops a bounded part of a body that nobody has read.

        A connection that is closed on unread data is reset, and a reset can overtake the answer.
        """
        if self.body_was_read:
            await self.error(refusal)
            return
        self.close()
        head, body = self._render(refusal)
        await self._pass_on(head)
        await self._pass_on({"type": "http.response.body", "body": body, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                await _drop(receive)
        await self._pass_on({"type": "http.response.body", "body": b""})

    async def _pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            headers = [*message.get("headers", ()), (b"x-trace-id", self.trace_id.encode())]
            message = {**message, "headers": headers}
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.complete = True

    def _render(self, error: PredictorError) -> tuple[Message, bytes]:
        answer = answer_of(error, trace_id=self.trace_id)
        body = json.dumps(answer.body, ensure_ascii=False, separators=(",", ":")).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), **answer.headers}
        if not self.body_was_read:
            headers["connection"] = "close"
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        return {"type": "http.response.start", "status": answer.status, "headers": raw}, body


async def _drop(receive: Receive) -> None:
    dropped = 0
    while dropped <= LINGER_BYTES:
        message = await receive()
        dropped += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return
