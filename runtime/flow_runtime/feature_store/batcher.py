"""Questions that arrive together are answered together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

from flow_runtime.errors import OperationFailed

Question = TypeVar("Question")
Answer = TypeVar("Answer")

LARGEST_BATCH = 1000


class Batcher(Generic[Question, Answer]):
    """Collects the questions of one turn of the event loop, and those that come while a batch is answered.

    `answer_all` gives an answer per question, in order; an exception among them is raised to the one who asked, and
    one that it raises to all. Whoever stops waiting leaves the others alone.
    """

    def __init__(
        self,
        answer_all: Callable[[Sequence[Question]], Awaitable[Sequence[Answer | Exception]]],
        *,
        largest: int = LARGEST_BATCH,
    ) -> None:
        self._answer_all = answer_all
        self._largest = largest
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._task: asyncio.Task[None] | None = None

    async def ask(self, question: Question) -> Answer:
        """Raises what `answer_all` says, and OperationFailed when the batcher is closed meanwhile."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((question, future))
        if self._task is None:
            # a context of its own: Serve cancels what runs in that of a caller who goes away
            self._task = loop.create_task(self._answer_waiting(), context=Context())
        return await future

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _answer_waiting(self) -> None:
        batch: list[tuple[Question, asyncio.Future[Answer]]] = []
        try:
            await asyncio.sleep(0)
            while self._waiting:
                batch, self._waiting = self._waiting[: self._largest], self._waiting[self._largest :]
                batch = [entry for entry in batch if not entry[1].done()]
                await self._answer(batch)
        finally:
            self._task = None
            for _, future in (*batch, *self._waiting):
                _settle(future, OperationFailed("the feature store is closing"))
            self._waiting = []

    async def _answer(self, batch: list[tuple[Question, asyncio.Future[Answer]]]) -> None:
        if not batch:
            return
        try:
            answers = await self._answer_all([question for question, _ in batch])
        except Exception as exc:  # noqa: BLE001 - it belongs to those who asked, not to this task
            answers = [exc] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            _settle(future, answer)


def _settle(future: asyncio.Future[Answer], answer: Answer | Exception) -> None:
    if future.done():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
