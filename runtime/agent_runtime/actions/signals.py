"""Signals wake whoever waits for a change in a store, so that a poll can be rare.

A signal is a hint to look again, never the truth: one may be lost, and one may come although nothing changed.
So a waiter listens first, then reads the store, then waits, and reads again whatever `wait` said:

    async with signals.listen(key) as listener:
        while (action := await store.get(...)).is_open:
            await listener.wait(timeout_s=poll_s)

Reading before listening would lose the signal that comes between the two. A key is for one thing in one scope;
whoever makes keys puts the scope into them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Protocol


class Listener(Protocol):
    """Hears one key from the moment that `listen` was entered."""

    async def wait(self, *, timeout_s: float | None) -> bool:
        """True as soon as there was a signal since the last wait, False after `timeout_s` (None: no bound)."""
        ...


class SignalChannel(Protocol):
    """Carries signals. It never raises because a server is gone: it is then as if the signal was lost."""

    def listen(self, key: str) -> AbstractAsyncContextManager[Listener]:
        """Hear the signals of `key` inside the block."""
        ...

    async def wait(self, key: str, *, timeout_s: float | None) -> bool:
        """`listen` for one signal that comes from now on."""
        ...

    async def notify(self, key: str) -> None:
        """Wake everybody who listens to `key`, after the change itself is stored."""
        ...


class _Bell:
    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def wait(self, *, timeout_s: float | None) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._rung.wait()
        heard = self._rung.is_set()
        self._rung.clear()
        return heard


class LocalSignalChannel:
    """A SignalChannel between the tasks of one event loop."""

    def __init__(self) -> None:
        self._bells: dict[str, set[_Bell]] = {}

    @asynccontextmanager
    async def listen(self, key: str) -> AsyncGenerator[Listener]:
        bell = _Bell()
        self._bells.setdefault(key, set()).add(bell)
        try:
            yield bell
        finally:
            bells = self._bells[key]
            bells.discard(bell)
            if not bells:
                del self._bells[key]

    async def wait(self, key: str, *, timeout_s: float | None) -> bool:
        async with self.listen(key) as listener:
            return await listener.wait(timeout_s=timeout_s)

    async def notify(self, key: str) -> None:
        for bell in self._bells.get(key, ()):
            bell.ring()

    async def notify_all(self) -> None:
        """Wake everybody: signals may have been lost."""
        for bells in self._bells.values():
            for bell in bells:
                bell.ring()
