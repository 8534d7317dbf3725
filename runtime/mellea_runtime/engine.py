"""The narrow door from mellea to the models, and the way to it from another event loop.

An engine belongs to one event loop. mellea's sync functions run on a loop of mellea's own, in a thread: their calls
are brought home, with the caller's context variables.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, Protocol, TypeVar

from llm_client.errors import (
    CallCancelled,
    CallFailed,
    CallMalformed,
    CallRateLimited,
    CallRejected,
    CallTimedOut,
    CallUnavailable,
    LLMClientError,
)
from llm_client.events import StreamEvent, StreamFailed
from llm_client.results import CompletionResult, EmbeddingResult
from llm_client.spec import EmbeddingSpec, RequestContext, RequestSpec
from mellea_runtime.errors import WouldBlockLoop

T = TypeVar("T")


class ChatEngine(Protocol):
    """What a backend needs of an ExecutionEngine."""

    async def complete(self, spec: RequestSpec, *, context: RequestContext | None = None) -> CompletionResult: ...

    def stream(self, spec: RequestSpec, *, context: RequestContext | None = None) -> AsyncGenerator[StreamEvent]: ...

    async def embed(self, spec: EmbeddingSpec, *, context: RequestContext | None = None) -> EmbeddingResult: ...


class HomeLoop:
    """An engine on the loop that it lives on: `home`, or that of the first call."""

    def __init__(self, engine: ChatEngine, home: asyncio.AbstractEventLoop | None = None) -> None:
        self._engine = engine
        self._home = home

    async def complete(self, spec: RequestSpec, *, context: RequestContext | None = None) -> CompletionResult:
        return await self._at_home(self._engine.complete(spec, context=context))

    async def embed(self, spec: EmbeddingSpec, *, context: RequestContext | None = None) -> EmbeddingResult:
        return await self._at_home(self._engine.embed(spec, context=context))

    async def stream(self, spec: RequestSpec, *, context: RequestContext | None = None) -> AsyncGenerator[StreamEvent]:
        events = self._engine.stream(spec, context=context)
        here = asyncio.get_running_loop()
        home = self._loop()
        async with aclosing(events if home is here else _brought(events, home, here)) as brought:
            async for event in brought:
                yield event

    async def _at_home(self, work: Coroutine[Any, Any, T]) -> T:
        home = self._loop()
        if home is asyncio.get_running_loop():
            return await work
        return await asyncio.wrap_future(on_loop(work, home))

    def _loop(self) -> asyncio.AbstractEventLoop:
        if self._home is None or self._home.is_closed():
            self._home = asyncio.get_running_loop()
        return self._home


def on_loop(work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> concurrent.futures.Future[T]:
    """Starts work on a loop of another thread, with this one's context variables.

    Raises WouldBlockLoop for a loop that stands still, on which it would never end.
    """
    if not loop.is_running():
        work.close()
        raise WouldBlockLoop("the event loop that the engine lives on is not running; ask from a task of that loop")
    return asyncio.run_coroutine_threadsafe(work, loop)


async def _brought(
    events: AsyncGenerator[StreamEvent], home: asyncio.AbstractEventLoop, here: asyncio.AbstractEventLoop
) -> AsyncGenerator[StreamEvent]:
    """The events of a generator that runs on another loop, in a single task there."""
    arrived: asyncio.Queue[StreamEvent | BaseException | None] = asyncio.Queue()

    def put(item: StreamEvent | BaseException | None) -> None:
        here.call_soon_threadsafe(arrived.put_nowait, item)

    async def pump() -> None:
        try:
            async with aclosing(events):
                async for event in events:
                    put(event)
        except asyncio.CancelledError:
            put(CallCancelled("The event loop of the engine ended during the call."))
            raise
        except Exception as exc:  # noqa: BLE001 - raised again where the events are read
            put(exc)
        else:
            put(None)

    pumping = on_loop(pump(), home)
    try:
        while (item := await arrived.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        pumping.cancel()


_FAILURES = {
    error.code: error for error in (CallMalformed, CallRateLimited, CallRejected, CallTimedOut, CallUnavailable)
}


def error_of(event: StreamFailed) -> LLMClientError:
    """The error that a stream ended with, as a call without a stream would raise it."""
    if event.code == CallCancelled.code:
        return CallCancelled(event.message)
    return _FAILURES.get(event.code, CallFailed)(event.message, retry_after=event.retry_after)
