"""Where a runtime's work runs: on the event loop of its engine, or on a private one in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterator
from typing import Any, TypeVar

from llmhub_runtime.background import BackgroundLoop
from mellea_runtime.engine import on_loop
from mellea_runtime.errors import WouldBlockLoop

T = TypeVar("T")
_END = object()


class Home:
    """`loop` is that of an engine whose owner runs it; without one everything runs on a loop of our own."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self.loop = loop
        self._background = BackgroundLoop("mellea-runtime")

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """For sync code: waits. Raises WouldBlockLoop on the loop that would have to do the work."""
        if self.loop is None and not self._background.is_current:
            return self._background.run(work)
        if self.loop is None or self._is_here():
            work.close()
            raise WouldBlockLoop("a sync method would block the event loop that its model call needs; await its twin")
        return on_loop(work, self.loop).result()

    async def arun(self, work: Coroutine[Any, Any, T]) -> T:
        """For async code on any loop."""
        if self.loop is None:
            if self._background.is_current:
                return await work
            return await asyncio.wrap_future(self._background.submit(work))
        if self._is_here():
            return await work
        return await asyncio.wrap_future(on_loop(work, self.loop))

    def iterate(self, items: AsyncGenerator[T]) -> Iterator[T]:
        """For sync code: each item as it comes."""
        try:
            while (item := self.run(_next(items))) is not _END:
                yield item
        finally:
            self.run(items.aclose())

    async def aiterate(self, items: AsyncGenerator[T]) -> AsyncGenerator[T]:
        """For async code on any loop."""
        try:
            while (item := await self.arun(_next(items))) is not _END:
                yield item
        finally:
            await self.arun(items.aclose())

    def close(self) -> None:
        self._background.close()

    def _is_here(self) -> bool:
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False


async def _next(items: AsyncGenerator[Any]) -> Any:
    return await anext(items, _END)
