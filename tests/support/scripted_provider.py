"""A real HTTP server that speaks enough of the OpenAI, Anthropic and Ollama APIs for any-llm to talk to it.

Each request takes the next scripted reply, or the normal answer for its path when the script is empty. The
server runs in a thread of its own, so synchronous tests and tests with their own event loop use it alike.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


@dataclass(frozen=True)
class Seen:
    """One request as it arrived. `client` is the address of its socket."""

    path: str
    headers: dict[str, str]
    body: Any
    client: tuple[str, int]


@dataclass(frozen=True)
class Reply:
    """What to send. `cut` ends the connection in the middle; `hold` keeps it open until the client leaves."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Sequence[bytes] = b""
    cut: bool = False
    hold: bool = False


def completion(text: str = "hello", **changes: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": USAGE,
        **changes,
    }


def chunk(text: str | None = None, finish: str | None = None, index: int = 0, **changes: Any) -> bytes:
    document = {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": index, "delta": {"content": text} if text else {}, "finish_reason": finish}],
        **changes,
    }
    return f"data: {json.dumps(document)}\n\n".encode()


USAGE_CHUNK = chunk(choices=[], usage=USAGE)
DONE = b"data: [DONE]\n\n"
FULL_STREAM = (chunk("hel"), chunk("lo"), chunk(finish="stop"), USAGE_CHUNK, DONE)


def json_reply(document: Any, status: int = 200, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, {"content-type": "application/json", **named}, json.dumps(document).encode())


def error_reply(status: int, message: str = "no", *, code: str | None = None, **headers: str) -> Reply:
    return json_reply({"error": {"message": message, "type": "t", "code": code}}, status, **headers)


def html_reply(status: int = 200) -> Reply:
    return Reply(status, {"content-type": "text/html"}, b"<html><body>hello</body></html>")


def stream_reply(*chunks: bytes, cut: bool = False, hold: bool = False) -> Reply:
    return Reply(200, {"content-type": "text/event-stream"}, chunks, cut, hold)


HANGS = Reply(status=0, hold=True)
"""Takes the request and never answers it."""


class ScriptedProvider:
    """`base` is the OpenAI-compatible URL, `root` the same without `/v1`."""

    def __init__(self) -> None:
        self._script: deque[Reply] = deque()
        self._socket = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(
            self._app,
            interface="asgi3",
            log_config=None,
            lifespan="off",
            ws="none",
            loop="asyncio",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)
        self.requests: list[Seen] = []
        self.left_early = 0
        self.root = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.base = f"{self.root}/v1"

    def script(self, *replies: Reply) -> None:
        self._script.extend(replies)

    def reset(self) -> None:
        self._script.clear()
        self.requests.clear()
        self.left_early = 0

    @property
    def open_connections(self) -> int:
        return len(self._server.server_state.connections)

    @property
    def sockets_used(self) -> int:
        return len({seen.client for seen in self.requests})

    def start(self) -> None:
        self._thread.start()
        wait_until(lambda: self._server.started)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while (event := await receive())["type"] == "http.request":
            body += event["body"]
            if not event["more_body"]:
                break
        document = json.loads(body or b"null")
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.requests.append(Seen(scope["path"], headers, document, scope["client"]))
        reply = self._script.popleft() if self._script else normal_reply(scope["path"], document)
        if reply.status:
            await self._send(reply, send)
        if reply.hold and await receive() == {"type": "http.disconnect"}:
            self.left_early += 1
        elif not reply.cut:
            await send({"type": "http.response.body", "body": b""})

    async def _send(self, reply: Reply, send: Any) -> None:
        headers = [(name.encode(), value.encode()) for name, value in reply.headers.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        for part in [reply.body] if isinstance(reply.body, bytes) else reply.body:
            await send({"type": "http.response.body", "body": part, "more_body": True})
            await asyncio.sleep(0)


def normal_reply(path: str, document: Any) -> Reply:
    match path:
        case "/v1/chat/completions":
            return stream_reply(*FULL_STREAM) if document.get("stream") else json_reply(completion())
        case "/v1/embeddings":
            inputs = document["input"] if isinstance(document["input"], list) else [document["input"]]
            size = document.get("dimensions", 3)
            data = [{"object": "embedding", "index": i, "embedding": [0.5] * size} for i in range(len(inputs))]
            usage = {"prompt_tokens": 2, "total_tokens": 2}
            return json_reply({"object": "list", "model": "e", "data": data, "usage": usage})
        case "/v1/messages":
            content = [{"type": "text", "text": "hello"}]
            usage = {"input_tokens": 11, "output_tokens": 7}
            message = {"id": "m1", "type": "message", "role": "assistant", "model": "m", "content": content}
            return json_reply({**message, "stop_reason": "end_turn", "stop_sequence": None, "usage": usage})
        case "/api/chat":
            message = {"role": "assistant", "content": "hello"}
            counts = {"prompt_eval_count": 11, "eval_count": 7}
            stamp = "2024-01-01T00:00:00Z"
            answer = {
                "model": "m",
                "created_at": stamp,
                "message": message,
                "done": True,
                "done_reason": "stop",
            }
            return json_reply({**answer, **counts})
        case _:
            return error_reply(404, f"no such path: {path}")


def wait_until(condition: Callable[[], bool], *, within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.005)


async def wait_until_async(condition: Callable[[], bool], *, within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.005)


@contextmanager
def running_provider() -> Iterator[ScriptedProvider]:
    provider = ScriptedProvider()
    provider.start()
    try:
        yield provider
    finally:
        provider.stop()
