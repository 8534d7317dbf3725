"""Requests that wait for their scope's turn: the fair queue, on an event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from agentflow_serve.errors import RETRY_AFTER_S, RequestRefused
from agentflow_serve.fair_queue import FairQueue, ScopeFull
from agentflow_serve.limits import EdgeLimits


class Turns:
    """The fair queue of one event loop. `on_waiting` hears how many wait, whenever that changes."""

    def __init__(
        self, *, per_scope: int, waiting: int, total: int | None, on_waiting: Callable[[int], None] | None = None
    ) -> None:
        self._waiting = 0
        self._on_waiting = on_waiting
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue(per_scope=per_scope, waiting=waiting, total=total)
        self._most_here = per_scope + waiting
        self._here: Counter[str] = Counter()
        self._answering: Counter[str] = Counter()

    @contextmanager
    def place(self, scope_id: str, *, answers: bool = False) -> Iterator[None]:
        """The block holds one of the places that a scope has for requests whose body is read, that wait or that run.

        Without it a tenant could fill the replica with bodies that never end. What `answers` a question has as many
        places of its own: the runs that wait for the answer may hold all others. Raises RequestRefused (429).
        """
        here = self._answering if answers else self._here
        if here[scope_id] >= self._most_here:
            raise _too_many()
        here[scope_id] += 1
        try:
            yield
        finally:
            here[scope_id] -= 1
            if not here[scope_id]:
                del here[scope_id]

    @asynccontextmanager
    async def turn(self, scope_id: str) -> AsyncIterator[None]:
        """The block runs when it is the scope's turn. Raises RequestRefused (429) where too many wait already."""
        await self._wait(scope_id)
        try:
            yield
        finally:
            self._leave(scope_id)

    async def _wait(self, scope_id: str) -> None:
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            if self._queue.enter(scope_id, ticket):
                return
        except ScopeFull:
            raise _too_many() from None
        self._count(1)
        try:
            await ticket
        except asyncio.CancelledError:
            if not self._queue.give_up(scope_id, ticket):
                self._leave(scope_id)
            raise
        finally:
            self._count(-1)

    def _count(self, more: int) -> None:
        self._waiting += more
        if self._on_waiting is not None:
            self._on_waiting(self._waiting)

    def _leave(self, scope_id: str) -> None:
        started = self._queue.leave(scope_id)
        # One that was cancelled while it waited hands its turn on itself.
        if started is not None and not started.done():
            started.set_result(None)


def _too_many() -> RequestRefused:
    return RequestRefused(
        "Too many of your requests are waiting already; try again shortly.",
        status=429,
        code="rate_limited",
        retry_after=RETRY_AFTER_S,
    )


def turns_of(limits: EdgeLimits, on_waiting: Callable[[int], None] | None = None) -> Turns | None:
    """The turns that the limits ask for; None where they ask for none."""
    if limits.per_scope_concurrency is None:
        return None
    return Turns(
        per_scope=limits.per_scope_concurrency,
        waiting=limits.per_scope_queue,
        total=limits.max_concurrent_requests,
        on_waiting=on_waiting,
    )
