"""A load generator: some connections over loopback, each with one request at a time, until all are answered.

Raw HTTP/1.1 over asyncio: an HTTP library would take more CPU than the servers that are measured here.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
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
        opened = [await asyncio.open_connection(HOST, target.port) for _ in range(connections)]
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for reader, writer in opened:
                group.create_task(_converse(reader, writer, left, target.expected))
        took = time.perf_counter() - began
    for _, writer in opened:
        writer.close()
        await writer.wait_closed()
    return took


async def _converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: Iterator[bytes], expected: bytes | None
) -> None:
    for request in left:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        body = await _body(reader, head)
        if not head.startswith(b"http/1.1 200") or (expected is not None and body != expected):
            raise RuntimeError(f"an answer that nobody expected: {head[:60]!r} {body[:300]!r}")


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    if length := _LENGTH.search(head):
        return await reader.readexactly(int(length[1]))
    chunks: list[bytes] = []
    while size := int(await reader.readline(), 16):
        chunks.append(await reader.readexactly(size))
        await reader.readline()
    await reader.readline()
    return b"".join(chunks)
