"""A load generator: some connections over loopback, each with one request at a time, until all are answered.

Raw HTTP/1.1 over asyncio: an HTTP library would take more CPU than the servers that are measured here.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import repeat

HOST = "127.0.0.1"
TIMEOUT_S = 120.0
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)")


@dataclass(frozen=True, slots=True)
class Target:
    port: int
    path: str
    body: bytes
    expected: bytes | None = None
    """The whole body of every answer; None takes any."""

    def request(self) -> bytes:
        head = (
            f"POST {self.path} HTTP/1.1\r\nhost: {HOST}:{self.port}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(self.body)}\r\n\r\n"
        )
        return head.encode() + self.body


def send(target: Target, *, requests: int, connections: int) -> float:
    """The seconds until `requests` are answered. Raises RuntimeError at the first answer that is not as expected."""
    return asyncio.run(_send(target, requests, connections))


async def _send(target: Target, requests: int, connections: int) -> float:
    left = repeat(target.request(), requests)
    async with asyncio.timeout(TIMEOUT_S):
        opened = [await _Connection.open(target) for _ in range(connections)]
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for connection in opened:
                group.create_task(_converse(connection, left))
        took = time.perf_counter() - began
    for connection in opened:
        await connection.close()
    return took


async def _converse(connection: _Connection, left: Iterator[bytes]) -> None:
    for request in left:
        head, body = await connection.ask(request)
        expected = connection.target.expected
        if not head.startswith(b"http/1.1 200") or (expected is not None and body != expected):
            raise RuntimeError(f"an answer that nobody expected: {head[:60]!r} {body[:300]!r}")


@dataclass(slots=True)
class _Connection:
    """One kept-alive connection. A server may close it between two requests (HAProxy does when it reloads): as
    every HTTP client does, the request is then sent on a new one, once."""

    target: Target
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, target: Target) -> _Connection:
        return cls(target, *await asyncio.open_connection(HOST, target.port))

    async def ask(self, request: bytes) -> tuple[bytes, bytes]:
        try:
            head = await self._head(request)
        except (asyncio.IncompleteReadError, ConnectionError) as gone:
            if isinstance(gone, asyncio.IncompleteReadError) and gone.partial:
                raise
            await self.close()
            self.reader, self.writer = await asyncio.open_connection(HOST, self.target.port)
            head = await self._head(request)
        return head, await _body(self.reader, head)

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()

    async def _head(self, request: bytes) -> bytes:
        self.writer.write(request)
        return (await self.reader.readuntil(b"\r\n\r\n")).lower()


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    if length := _LENGTH.search(head):
        return await reader.readexactly(int(length[1]))
    chunks: list[bytes] = []
    while size := int(await reader.readline(), 16):
        chunks.append(await reader.readexactly(size))
        await reader.readline()
    await reader.readline()
    return b"".join(chunks)
