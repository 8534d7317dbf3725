"""An event bus within one process and one event loop."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import deque
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Self

from agent_runtime.events.bus import Handler
from agent_runtime.events.types import RuntimeEvent, RuntimeEventType

logger = logging.getLogger(__name__)

MAX_QUEUED = 1024
YIELD_EVERY = 32
"""Publishing lets subscribers run after so many events, or a busy publisher would fill every queue by itself."""

Place = tuple[str | None, str | None]
"""Scope and job that a subscriber hears; None is all of them."""


class InMemoryEventBus:
    """An EventBus. A subscriber has a task only while it has events, so a quiet bus leaves nothing to close.

    `max_queued` bounds each subscriber's queue; `dropped` counts what all of them have lost.
    """

    def __init__(self, *, max_queued: int = MAX_QUEUED) -> None:
        self._max_queued = max_queued
        self._mailboxes: dict[Place, dict[_Mailbox, None]] = {}
        self._published = 0
        self.dropped = 0

    async def publish(self, event: RuntimeEvent) -> None:
        for place in _places(event):
            for mailbox in self._mailboxes.get(place, ()):
                if mailbox.types is None or event.type in mailbox.types:
                    self.dropped += mailbox.put(event)
        self._published += 1
        if self._published % YIELD_EVERY == 0:
            await asyncio.sleep(0)

    async def subscribe(
        self,
        handler: Handler,
        *,
        event_types: Collection[RuntimeEventType] | None = None,
        job_id: str | None = None,
        scope_id: str | None = "default",
    ) -> CallbackSubscription:
        mailbox = _Mailbox(event_types, self._max_queued)
        subscription = CallbackSubscription(handler, mailbox, lambda: self._remove((scope_id, job_id), mailbox))
        self._add((scope_id, job_id), mailbox)
        return subscription

    def events(
        self,
        *,
        event_types: Collection[RuntimeEventType] | None = None,
        job_id: str | None = None,
        scope_id: str | None = "default",
    ) -> PulledEvents:
        mailbox = _Mailbox(event_types, self._max_queued)
        self._add((scope_id, job_id), mailbox)
        stream = PulledEvents(mailbox, lambda: self._remove((scope_id, job_id), mailbox))
        # A stream that was broken off and forgotten would otherwise be filled for ever.
        weakref.finalize(stream, self._remove, (scope_id, job_id), mailbox).atexit = False
        return stream

    async def flush(self) -> None:
        """Return when no handler has anything left to do. Streams are their readers' business."""
        while tasks := [each.task for group in self._mailboxes.values() for each in group if each.task is not None]:
            await asyncio.wait(tasks)

    @property
    def subscribers(self) -> int:
        return sum(map(len, self._mailboxes.values()))

    def _add(self, place: Place, mailbox: _Mailbox) -> None:
        # A new dictionary: publish() may be going through the old one.
        self._mailboxes[place] = {**self._mailboxes.get(place, {}), mailbox: None}

    def _remove(self, place: Place, mailbox: _Mailbox) -> None:
        left = {other: None for other in self._mailboxes.get(place, ()) if other is not mailbox}
        if left:
            self._mailboxes[place] = left
        else:
            self._mailboxes.pop(place, None)


def _places(event: RuntimeEvent) -> tuple[Place, ...]:
    scope_id, job_id = event.scope_id, event.job_id
    if job_id is None:
        return (scope_id, None), (None, None)
    return (scope_id, job_id), (scope_id, None), (None, job_id), (None, None)


class _Mailbox:
    """The bounded queue of one subscriber. `wake` is called when it has events after it had none."""

    def __init__(self, types: Collection[RuntimeEventType] | None, max_queued: int) -> None:
        self.types = None if types is None else frozenset(types)
        self.queue: deque[RuntimeEvent] = deque(maxlen=max_queued)
        self.wake: Callable[[], None] = lambda: None
        self.task: asyncio.Task[None] | None = None
        self.dropped = 0

    def put(self, event: RuntimeEvent) -> int:
        """How many events had to go for it."""
        queue = self.queue
        lost = int(len(queue) == queue.maxlen)
        was_empty = not queue
        queue.append(event)
        self.dropped += lost
        if was_empty:
            self.wake()
        return lost


class CallbackSubscription:
    """A Subscription: calls its handler in a task of its own, one event after the other."""

    def __init__(self, handler: Handler, mailbox: _Mailbox, remove: Callable[[], None]) -> None:
        self._handler = handler
        self._mailbox = mailbox
        self._remove = remove
        self.errors = 0
        mailbox.wake = self._wake

    @property
    def dropped(self) -> int:
        return self._mailbox.dropped

    async def unsubscribe(self) -> None:
        self._remove()
        self._mailbox.queue.clear()
        task = self._mailbox.task
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.wait((task,))

    def _wake(self) -> None:
        if self._mailbox.task is None:
            self._mailbox.task = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        queue, handler = self._mailbox.queue, self._handler
        try:
            while queue:
                try:
                    answer = handler(queue.popleft())
                    if answer is not None:
                        await answer
                except Exception:
                    self.errors += 1
                    if self.errors & (self.errors - 1) == 0:  # the 1st, 2nd, 4th, ...: it floods no log
                        logger.exception("an event handler failed, for the %d. time", self.errors)
        finally:
            self._mailbox.task = None
            if queue:  # it was cancelled from inside the handler; what is left is still somebody's
                self._wake()


class PulledEvents:
    """An EventStream."""

    def __init__(self, mailbox: _Mailbox, remove: Callable[[], None]) -> None:
        self._mailbox = mailbox
        self._remove = remove
        self._news = asyncio.Event()
        self._closed = False
        mailbox.wake = self._news.set  # no reference to the stream itself

    @property
    def dropped(self) -> int:
        return self._mailbox.dropped

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RuntimeEvent:
        queue = self._mailbox.queue
        while not queue:
            if self._closed:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return queue.popleft()

    async def close(self) -> None:
        self._remove()
        self._closed = True
        self._news.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
