"""A wire between a client and a server that a test can cut, block or cut at the worst moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path


class Proxy:
    """Listens on `port` of loopback and speaks for the server on the socket `target`."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_words: bytes | None = None
        self._then_block = False
        self.port = 0
        self.delay_s = 0.0
        """How long each word takes to the server."""

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._tasks)

    def block(self) -> None:
        """From now on nothing gets through, and nobody is told: a network that swallows packets."""
        self._open.clear()

    def unblock(self) -> None:
        self._open.set()

    def cut(self) -> None:
        """End every connection; new ones are served."""
        for writer in self._writers:
            writer.transport.abort()

    def cut_after(self, words: bytes, *, then_block: bool = False) -> None:
        """Once: when the client has said `words`, the server hears them and its answer is lost with the connection."""
        self._last_words = words
        self._then_block = then_block

    async def stop(self) -> None:
        self._server.close()
        self.unblock()
        while self._tasks:
            self.cut()
            await asyncio.sleep(0.001)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        server = None
        try:
            from_server, server = await asyncio.open_unix_connection(self._target)
            self._writers.add(server)
            over = asyncio.Event()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry_words(reader, server, over))
                group.create_task(self._carry_answers(from_server, writer, over))
        except* (OSError, EOFError):
            pass
        finally:
            for each in filter(None, (writer, server)):
                self._writers.discard(each)
                each.transport.abort()
                with suppress(OSError):
                    await each.wait_closed()
            self._tasks.discard(task)

    async def _carry_words(
        self, client: asyncio.StreamReader, server: asyncio.StreamWriter, over: asyncio.Event
    ) -> None:
        while data := await client.read(65536):
            await self._open.wait()
            await asyncio.sleep(self.delay_s)
            if self._last_words is not None and self._last_words in data:
                self._last_words = None
                over.set()
            server.write(data)
            await server.drain()
        raise EOFError

    async def _carry_answers(
        self, server: asyncio.StreamReader, client: asyncio.StreamWriter, over: asyncio.Event
    ) -> None:
        while (data := await server.read(65536)) and not over.is_set():
            await self._open.wait()
            client.write(data)
            await client.drain()
        if over.is_set() and self._then_block:
            self.block()
        raise EOFError


@asynccontextmanager
async def proxy_to(target: Path) -> AsyncIterator[Proxy]:
    proxy = Proxy(target)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
