"""A small HTTP server on a free local port that keeps what it was sent and answers as it is told."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

Respond = Callable[["Request", asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Request:
    line: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Stub:
    """`connections` counts every accepted one; `hung_up` those that the client closed before we did."""

    port: int = 0
    connections: int = 0
    hung_up: int = 0
    requests: list[Request] = field(default_factory=list)


def answer(body: bytes = b"", *, status: str = "200 OK", **headers: str) -> bytes:
    """A whole answer; header names are written with underscores."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def saying(*parts: bytes) -> Respond:
    async def respond(request: Request, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()

    return respond


@asynccontextmanager
async def http_stub(respond: Respond, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Stub]:
    stub = Stub()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stub.connections += 1
        try:
            while True:
                request = await _read(reader)
                stub.requests.append(request)
                await respond(request, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            stub.hung_up += 1
        finally:
            writer.close()
            with suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    stub.port = server.sockets[0].getsockname()[1]
    before = asyncio.all_tasks()
    try:
        yield stub
    finally:
        server.close()
        await server.wait_closed()
        ours = [task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()]
        for task in ours:
            task.cancel()
        await asyncio.gather(*ours, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *rest = head.rstrip().split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (row.partition(":") for row in rest)}
    return Request(line, headers, await reader.readexactly(int(headers.get("content-length", 0))))
