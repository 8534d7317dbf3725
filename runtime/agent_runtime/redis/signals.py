"""Signals between processes, by Redis Pub/Sub.

    client = await redis.from_url("redis://localhost")
    channel = RedisSignalChannel(client)
    await channel.start()

One Redis channel carries all keys, so that `listen` has nothing to subscribe to: from `start` on, everything is
heard. Whoever listens is woken when the connection had to be made anew, because signals were lost meanwhile.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Self

from redis.asyncio import Redis

from agent_runtime.actions.signals import Listener, LocalSignalChannel
from agent_runtime.redis.lossy import TROUBLE, Lossy
from runtime_core.clock import Clock, SystemClock

logger = logging.getLogger(__name__)

DEFAULT_NAME = "agentflow:signals"

# After so much silence the server is asked whether it is still there; no answer in the same time means no.
SILENCE_S = 5.0
_RETRY_S = 0.2


class RedisSignalChannel:
    """A SignalChannel for every process that uses the same Redis and `name`. The client stays its owner's to close.

    Without Redis, signals still reach the listeners of this process; those of others find out by polling.
    """

    def __init__(
        self,
        client: Redis,
        *,
        name: str = DEFAULT_NAME,
        timeout_s: float = 1.0,
        silence_s: float = SILENCE_S,
        clock: Clock | None = None,
    ) -> None:
        self._client = client
        self._name = name
        self._timeout_s = timeout_s
        self._silence_s = silence_s
        self._publishing = Lossy("signals", clock=clock or SystemClock(), timeout_s=timeout_s)
        self._local = LocalSignalChannel()
        self._subscribed = asyncio.Event()
        self._hearing: asyncio.Task[None] | None = None

    @property
    def is_connected(self) -> bool:
        """Whether signals of other processes are heard right now."""
        return self._subscribed.is_set()

    async def start(self) -> None:
        """Begin to hear; when this returns, signals are heard, unless Redis is not there in time.

        Then they are as soon as it is there. A second start does nothing.
        """
        if self._hearing is None:
            self._hearing = asyncio.create_task(self._hear(), context=contextvars.Context())
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                await self._subscribed.wait()

    async def stop(self) -> None:
        """Hear no more, and let go of the connection."""
        hearing, self._hearing = self._hearing, None
        if hearing is not None:
            hearing.cancel()
            await asyncio.wait([hearing])
        self._subscribed.clear()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @asynccontextmanager
    async def listen(self, key: str) -> AsyncGenerator[Listener]:
        if self._hearing is None:
            raise RuntimeError("The signal channel hears nothing yet: await its start() first.")
        async with self._local.listen(key) as listener:
            yield listener

    async def wait(self, key: str, *, timeout_s: float | None) -> bool:
        async with self.listen(key) as listener:
            return await listener.wait(timeout_s=timeout_s)

    async def notify(self, key: str) -> None:
        await self._local.notify(key)
        await self._publishing.call(lambda: self._client.publish(self._name, key))

    async def _hear(self) -> None:
        while True:
            pubsub = self._client.pubsub()
            try:
                await pubsub.subscribe(self._name)
                await self._relay(pubsub)
            except TROUBLE as error:
                if self._subscribed.is_set():
                    logger.warning("signals of other processes are not heard now: %s", type(error).__name__)
            finally:
                self._subscribed.clear()
                with suppress(*TROUBLE):
                    await pubsub.aclose()
            await asyncio.sleep(_RETRY_S)

    async def _relay(self, pubsub: Any) -> None:
        """Until the connection is lost, which also silence means."""
        asked = False
        while True:
            message = await pubsub.get_message(timeout=self._silence_s)
            if message is None:
                if asked:
                    raise TimeoutError("Redis is silent")
                await pubsub.ping()
                asked = True
                continue
            asked = False
            if message["type"] == "subscribe":
                self._subscribed.set()
                await self._local.notify_all()
            elif message["type"] == "message":
                await self._local.notify(_text(message["data"]))


def _text(data: bytes | str) -> str:
    """A client made with `decode_responses` gives text."""
    return data if isinstance(data, str) else data.decode(errors="replace")
