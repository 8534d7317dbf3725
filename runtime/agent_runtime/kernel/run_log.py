"""What a run tells, kept from its first event on for whoever asks, however late and however often."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Collection

from agent_runtime.events.bus import EventBus, EventStream, Handler, Subscription
from agent_runtime.events.types import RuntimeEvent, RuntimeEventType

MOST_EVENTS = 10_000
MOST_RUNS = 1_000
"""Runs that have ended and whose events are still there."""


ENDINGS = frozenset(
    {
        RuntimeEventType.JOB_COMPLETED,
        RuntimeEventType.JOB_FAILED,
        RuntimeEventType.JOB_CANCELLED,
        RuntimeEventType.JOB_TIMED_OUT,
    }
)


class RunLog:
    """The events of one run; the oldest go where there are too many, and `dropped` counts them.

    A job may end before its work has come to rest: the job's end is the last event all the same.
    """

    def __init__(self, *, most: int = MOST_EVENTS) -> None:
        self._events: deque[RuntimeEvent] = deque(maxlen=most)
        self._seen = 0
        self._last: RuntimeEvent | None = None
        self._news = asyncio.Event()
        self.ended = asyncio.Event()

    @property
    def dropped(self) -> int:
        return self._seen - len(self._events)

    @property
    def types(self) -> set[RuntimeEventType]:
        last = () if self._last is None else (self._last.type,)
        return {*(event.type for event in self._events), *last}

    def append(self, event: RuntimeEvent) -> None:
        if self.ended.is_set():
            return
        if event.type in ENDINGS:
            self._last = event
            return
        self._add(event)

    def end(self) -> None:
        """Nothing more will come."""
        self.ended.set()
        if self._last is not None:
            self._add(self._last)
        self._wake()

    async def events(self) -> AsyncGenerator[RuntimeEvent]:
        """All of them from the first one on; ends after the last one."""
        position = 0
        while True:
            position = max(position, self.dropped)
            if position < self._seen:
                event = self._events[position - self.dropped]
                position += 1
                yield event
            elif self.ended.is_set():
                return
            else:
                await self._news.wait()

    def _add(self, event: RuntimeEvent) -> None:
        self._events.append(event)
        self._seen += 1
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class RecordingBus:
    """An EventBus that also writes the events of known runs into their logs, before anybody else hears of them."""

    def __init__(self, inner: EventBus) -> None:
        self._inner = inner
        self._starting: dict[str, RunLog] = {}
        self._logs: dict[tuple[str, str], RunLog] = {}
        self._ended: OrderedDict[tuple[str, str], None] = OrderedDict()

    def expect(self, run_id: str) -> RunLog:
        """A log for a run whose job has no id yet."""
        log = self._starting[run_id] = RunLog()
        return log

    def settle(self, run_id: str, job: tuple[str, str] | None) -> None:
        """The job of an expected run, as scope and id; None if it came to nothing."""
        log = self._starting.pop(run_id)
        if job is not None:
            self._logs[job] = log
            self._ended.pop(job, None)

    def find(self, scope_id: str, job_id: str) -> RunLog | None:
        return self._logs.get((scope_id, job_id))

    def end(self, scope_id: str, job_id: str) -> None:
        """The log stays for a while."""
        key = (scope_id, job_id)
        self._logs[key].end()
        self._ended[key] = None
        if len(self._ended) > MOST_RUNS:
            del self._logs[self._ended.popitem(last=False)[0]]

    async def publish(self, event: RuntimeEvent) -> None:
        log = self._logs.get((event.scope_id, event.job_id or "")) or self._starting.get(event.run_id or "")
        if log is not None:
            log.append(event)
        await self._inner.publish(event)

    async def subscribe(
        self,
        handler: Handler,
        *,
        event_types: Collection[RuntimeEventType] | None = None,
        job_id: str | None = None,
        scope_id: str | None = "default",
    ) -> Subscription:
        return await self._inner.subscribe(handler, event_types=event_types, job_id=job_id, scope_id=scope_id)

    def events(
        self,
        *,
        event_types: Collection[RuntimeEventType] | None = None,
        job_id: str | None = None,
        scope_id: str | None = "default",
    ) -> EventStream:
        return self._inner.events(event_types=event_types, job_id=job_id, scope_id=scope_id)
