"""A thread that handles operations in batches for the tasks of one event loop, with a bounded queue.

The thread runs in an empty context, and a cancelled caller leaves its operation in the queue: a client that
disconnects under Ray Serve cancels everything it can reach, and a commit must not be among that.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from runtime_core.errors import StoreUnavailableError
from runtime_core.stores.outcome import Done, Failed, Outcome, outcome_of
from runtime_core.stores.settle import settle
from runtime_core.stores.sql import OpFactory

T = TypeVar("T")

_log = logging.getLogger(__name__)

# A loop that is busy with short callbacks lets go of the interpreter lock too briefly for another thread to
# get it: one write took up to 11 s. Pausing the loop when its operations make no progress made that 0.05 s.
_PATIENCE_S = 0.005
_PAUSE_S = 0.001


class Engine(Protocol):
    """What the thread does; all three are called on it."""

    def open(self) -> None: ...
    def handle(self, batch: Sequence[OpFactory[Any]]) -> list[Outcome]: ...
    def close(self) -> None: ...


@dataclass(slots=True, eq=False)
class _Job:
    op_factory: OpFactory[Any]
    answer: asyncio.Future[Any]
    holds_slot: bool


class Worker:
    """Create, `start()` and `stop()` it on one event loop."""

    def __init__(self, engine: Engine, *, name: str, max_pending: int, max_batch: int) -> None:
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._max_batch = max_batch
        self._slots = asyncio.Semaphore(max_pending)
        self._turn: list[_Job] = []
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._stopping = False
        self._accepted = 0
        self._answered = 0
        self._watched = False
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        # A daemon, so that a forgotten close() cannot keep the process alive; acknowledged work is durable.
        self._thread = threading.Thread(target=contextvars.Context().run, args=(self._work,), name=name, daemon=True)

    async def start(self) -> None:
        """Return when the engine is open; raises what its open() raised."""
        self._thread.start()
        await asyncio.shield(self._opened)

    async def submit(self, op_factory: OpFactory[T]) -> T:
        """The operation's result; waits while the queue is full. Cancelling abandons only the answer."""
        answer: asyncio.Future[T] = self._loop.create_future()
        try:
            await self._slots.acquire()
        except asyncio.CancelledError:
            # Beyond the bound, but by no more than the tasks that were waiting anyway.
            self._enqueue(_Job(op_factory, answer, holds_slot=False))
            answer.cancel()
            raise
        if not self._enqueue(_Job(op_factory, answer, holds_slot=True)):
            self._slots.release()
            raise StoreUnavailableError("The store is closed.")
        return await answer

    def abandon(self) -> None:
        """Accept nothing more; the thread finishes what it has and ends by itself."""
        if not self._stopping:
            self._stopping = True
            self._hand_over()
            self._queue.put(None)

    async def stop(self) -> None:
        """Handle what was accepted, close the engine and end the thread."""
        self.abandon()
        if self._thread.is_alive():
            await asyncio.shield(self._closed)
            self._thread.join()

    def _enqueue(self, job: _Job) -> bool:
        if self._stopping:
            return False
        self._accepted += 1
        if not self._turn:
            self._loop.call_soon(self._hand_over)
        self._turn.append(job)
        if not self._watched:
            self._watched = True
            self._loop.call_later(_PATIENCE_S, self._watch, self._answered)
        return True

    def _hand_over(self) -> None:
        """At the end of the loop's turn: the thread would begin with the first one alone, while the others wait."""
        for job in self._turn:
            self._queue.put(job)
        self._turn.clear()

    def _watch(self, answered: int) -> None:
        """Every _PATIENCE_S while operations are pending; `answered` is how far the last look saw them."""
        if self._answered == self._accepted:
            self._watched = False
            return
        if self._answered == answered:
            time.sleep(_PAUSE_S)
        self._loop.call_later(_PATIENCE_S, self._watch, self._answered)

    def _work(self) -> None:
        opened = outcome_of(self._engine.open)
        self._tell(settle, self._opened, opened)
        if isinstance(opened, Done):
            while batch := self._next_batch():
                self._handle(batch)
            closed = outcome_of(self._engine.close)
            if isinstance(closed, Failed):
                _log.warning("A store did not close cleanly: %s", closed.error)
        self._tell(settle, self._closed, Done(None))

    def _next_batch(self) -> list[_Job]:
        """Whatever waits, at least one job; empty when there will be no more."""
        batch: list[_Job] = []
        while len(batch) < self._max_batch:
            try:
                job = self._queue.get(block=not batch)
            except queue.Empty:
                break
            if job is None:
                self._queue.put(None)  # seen again, first, by the next call
                break
            batch.append(job)
        return batch

    def _handle(self, batch: list[_Job]) -> None:
        handled = outcome_of(lambda: self._engine.handle([job.op_factory for job in batch]))
        outcomes = handled.value if isinstance(handled, Done) else [handled] * len(batch)
        self._tell(self._answer, batch, outcomes)

    def _answer(self, batch: list[_Job], outcomes: list[Outcome]) -> None:
        self._answered += len(batch)
        for job, outcome in zip(batch, outcomes, strict=True):
            if job.holds_slot:
                self._slots.release()
            settle(job.answer, outcome)

    def _tell(self, callback: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:  # the loop is closed: nobody is waiting any more
            _log.debug("A store outlived its event loop.")
