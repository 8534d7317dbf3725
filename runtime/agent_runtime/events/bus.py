"""Who hears of events, and what everybody may rely on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from types import TracebackType
from typing import Protocol, Self

from agent_runtime.events.types import RuntimeEvent, RuntimeEventType

Handler = Callable[[RuntimeEvent], Awaitable[None] | None]


class Subscription(Protocol):
    """A handler's place on a bus. `dropped` counts the events that its queue had no room for, `errors` its own."""

    @property
    def dropped(self) -> int: ...

    @property
    def errors(self) -> int: ...

    async def unsubscribe(self) -> None:
        """Once this returns, the handler is not running and will not be called. What it had not seen is dropped."""
        ...


class EventStream(Protocol):
    """The pull form: `async with` it and iterate. It hears what is published from the moment that it is made."""

    @property
    def dropped(self) -> int: ...

    def __aiter__(self) -> AsyncIterator[RuntimeEvent]: ...

    async def __anext__(self) -> RuntimeEvent: ...

    async def close(self) -> None:
        """What is queued can still be read; then the iteration ends."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class EventBus(Protocol):
    """Each subscriber hears the events of a publisher in order, through a bounded queue of its own.

    A full queue drops its oldest event and counts it. A subscriber that is slow or raises hurts nobody else.
    `scope_id` is the one scope that a subscriber hears; None is every scope, for what watches over all tenants.
    """

    async def publish(self, event: RuntimeEvent) -> None:
        """Hand the event to whoever wants it; waits for nobody."""
        ...

    async def subscribe(
        self,
        handler: Handler,
        *,
        event_types: Collection[RuntimeEventType] | None = None,
        job_id: str | None = None,
        scope_id: str | None = "default",
    ) -> Subscription:
        """Call `handler` with every event of these types, or of all; of one job, or of all of the scope."""
        ...

    def events(
        self,
        *,
        event_types: Collection[RuntimeEventType] | None = None,
        job_id: str | None = None,
        scope_id: str | None = "default",
    ) -> EventStream:
        """The same as a stream."""
        ...
