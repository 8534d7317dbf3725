"""Reading a streamed answer to its true end.

any-llm ends a cut stream like a complete one: no error, no usage, no finish reason. So an answer counts as
complete only when every choice that began has a finish reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any, Protocol

from .classify import call_error
from .errors import ProviderMalformedError
from .models import ResolvedCall
from .verdict import CUT

_END = object()


class Translate(Protocol):
    """`classify.translated`, bound to a call."""

    def __call__(self, *, reading: bool = False) -> AbstractContextManager[None]: ...


class TimeBudget:
    """Seconds that may be spent waiting for the provider; the consumer's own time does not count."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._left = seconds

    async def wait_for(self, work: Awaitable[Any]) -> Any:
        """What `work` gives, if it does in time."""
        if self._left is None:
            return await work
        async with self.spend():
            return await work

    @asynccontextmanager
    async def spend(self) -> AsyncGenerator[None]:
        """Around one wait. Raises TimeoutError when the whole budget is used up."""
        if self._left is None:
            yield
            return
        clock = asyncio.get_running_loop().time
        started = clock()
        limit = asyncio.timeout(self._left)
        try:
            async with limit:
                yield
        except TimeoutError:
            if limit.expired():
                raise TimeoutError(f"no answer within {self._seconds:g} s") from None
            raise
        finally:
            self._left = max(0.0, self._left - (clock() - started))


class StreamTally:
    """What the chunks said so far: token counts, finish reasons, and so whether the answer is complete."""

    def __init__(self) -> None:
        self.usage: Any = None
        self._finished: dict[int, str | None] = {}

    @property
    def finish_reason(self) -> str | None:
        """The first choice's."""
        return self._finished[min(self._finished)] if self._finished else None

    @property
    def is_complete(self) -> bool:
        return bool(self._finished) and all(self._finished.values())

    def see(self, chunk: Any) -> None:
        self.usage = getattr(chunk, "usage", None) or self.usage
        for choice in chunk.choices:
            self._finished[choice.index] = choice.finish_reason or self._finished.get(choice.index)


async def read_stream(
    open_stream: Callable[[], Awaitable[Any]],
    *,
    call: ResolvedCall,
    budget: TimeBudget,
    tally: StreamTally,
    translate: Translate,
) -> AsyncGenerator[Any]:
    """Every chunk as any-llm made it. Leaves the upstream closed, however it is left.

    Raises ProviderMalformedError with code `cut_stream` when the answer ends without a finish reason.
    """
    with translate():
        async with budget.spend():
            upstream = await open_stream()
    try:
        while True:
            with translate(reading=True):
                async with budget.spend():
                    chunk = await anext(upstream, _END)
                if chunk is not _END:
                    tally.see(chunk)
            if chunk is _END:
                break
            yield chunk
    finally:
        close = getattr(upstream, "aclose", None)
        if close is not None:
            await close()
    if not tally.is_complete:
        raise call_error(ProviderMalformedError, call, detail="the stream ended without a finish reason.", code=CUT)
