"""One call: its attempts one after another, until one answers or nothing is left to try."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from llm_client.attempts import Asked, AttemptFailed, OpenAttempt, Parts, ask, open_attempt
from llm_client.errors import CallFailed, CallUnavailable
from llm_client.events import ReasoningDelta, TextDelta
from llm_client.failures import Delivered
from llm_client.providers.protocol import Delta
from llm_client.results import CompletionResult, EmbeddingResult
from llm_client.retry import Next, Tries
from llm_client.spec import RequestSpec
from runtime_core.call_log.keys import KeyState


class Call:
    """`key_state` is what became of the call's idempotency key, if it has one, once there is an answer.

    `offer` gives the answer to the key once more, if that is the call's again.
    """

    def __init__(self, parts: Parts, asked: Asked, tries: Tries) -> None:
        self._parts = parts
        self._asked = asked
        self._tries = tries
        self.key_state: KeyState | None = None
        self._answered: OpenAttempt | None = None
        self.request_hash = ""

    async def answer(self) -> CompletionResult | EmbeddingResult:
        """Raises CallFailed, CallRefused, CallStoreError."""
        step = self._first()
        while True:
            try:
                opened = await open_attempt(self._parts, self._asked, step.provider, self._tries.made)
                try:
                    answer = await ask(opened)
                except BaseException as exc:  # the row ends whatever comes, cancellation included
                    await opened.fail(exc)
                    raise
                result = await opened.settle(answer)
                self._note(opened)
                return result
            except AttemptFailed as failed:
                step = await self._next(failed)

    async def stream(self) -> AsyncGenerator[Delta | CompletionResult]:
        """The deltas of one attempt, then its result. Nothing is tried again once a delta is out."""
        step = self._first()
        while True:
            try:
                opened = await open_attempt(self._parts, self._asked, step.provider, self._tries.made)
                reading = _Reading(opened)
                async with aclosing(reading.events()) as events:
                    async for event in events:
                        if isinstance(event, CompletionResult):
                            self._note(opened)  # whoever hears the result asks at once what became of the key
                        yield event
                return
            except AttemptFailed as failed:
                if failed.delivered:
                    raise self._final(failed) from failed
                step = await self._next(failed)

    async def offer(self) -> KeyState | None:
        assert self._answered is not None, "there is an answer to offer"
        return await self._answered.offer()

    def _first(self) -> Next:
        step = self._tries.first()
        if step is None:
            role = self._asked.target.role
            raise CallUnavailable(f"Role '{role}' may not be tried again: all attempts were used up.", role=role)
        return step

    async def _next(self, failed: AttemptFailed) -> Next:
        left = self._parts.left_s(self._asked.deadline)
        step = self._tries.after(failed.failure, left_s=left)
        if step is None:
            raise self._final(failed) from failed.__cause__
        if self._parts.hooks:
            name = "attempt.retry" if step.again else "attempt.fallback"
            await self._parts.hooks.emit(
                name,
                self._asked.context,
                call_id=self._asked.call_id,
                role=step.provider.target.role,
                pause_s=step.pause_s,
                error=failed.error.code,
            )
        if step.pause_s > 0:
            await self._parts.clock.sleep(step.pause_s)
        return step

    def _final(self, failed: AttemptFailed) -> CallFailed:
        failed.error.attempts = self._tries.made
        return failed.error

    def _note(self, opened: OpenAttempt) -> None:
        self.key_state = opened.key_state
        self._answered = opened
        self.request_hash = opened.attempt.request_hash


class _Reading:
    """One attempt at a stream. The upstream is closed before its row ends, however the reading ends."""

    def __init__(self, opened: OpenAttempt) -> None:
        self._opened = opened
        self._bytes = 0

    async def events(self) -> AsyncGenerator[Delta | CompletionResult]:
        opened, request = self._opened, self._opened.request
        assert isinstance(request, RequestSpec)
        upstream = opened.provider.stream(request, attempt_id=opened.attempt_id)
        result: CompletionResult | None = None
        try:
            async with aclosing(upstream):
                while (event := await opened.within_time(anext(upstream, None))) is not None:
                    if isinstance(event, CompletionResult):
                        result = event
                        break
                    self._bytes += _size(event)
                    yield event
            if result is None:
                raise RuntimeError(f"the provider of role '{opened.attempt.role}' ended a stream without its result")
        except BaseException as exc:  # the row ends whatever comes, a consumer who leaves included
            await opened.fail(exc, Delivered(self._bytes, streamed=True))
            raise
        result = await opened.settle(result)
        yield result


def _size(event: Delta) -> int:
    if isinstance(event, TextDelta | ReasoningDelta):
        return len(event.text.encode(errors="replace"))
    return len(event.arguments.encode(errors="replace")) + len((event.name or "").encode(errors="replace"))
