"""Calls under an idempotency key: who executes, and how the one answer reaches everybody."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from llm_client.attempts import Asked, Parts
from llm_client.cached import Answer, again, decode
from llm_client.errors import CallFailed, CallRefused, CallStoreError, CallTimedOut, IdempotencyConflictError
from llm_client.idempotency import Given, IdempotencyTracker, Leader
from runtime_core.call_log.keys import Claim, Conflict, Done, InFlight, KeyState
from runtime_core.errors import StoreError, StoreQuotaError

log = logging.getLogger(__name__)

Offer = Callable[[], Awaitable[KeyState | None]]
"""Gives an answer to its key, once that is the caller's again; the key as it is then."""


class KeyedCalls:
    """The idempotency of one engine."""

    def __init__(self, parts: Parts, tracker: IdempotencyTracker) -> None:
        self._parts = parts
        self._tracker = tracker

    async def enter(self, asked: Asked, key: str) -> Lead | Answer:
        """The right to execute, or the answer.

        Raises CallTimedOut when neither comes before the deadline, CallRefused for a scope with too many keys.
        """
        claim = self._tracker.claim(
            scope_id=asked.context.tenant_id, key=key, request_hash=asked.request_hash, owner=asked.call_id
        )
        try:
            async with asyncio.timeout(self._parts.left_s(asked.deadline)):
                entered = await self._tracker.enter(claim, self._parts.log)
        except TimeoutError as exc:
            raise CallTimedOut("A request with the same idempotency key did not end before the deadline.") from exc
        except StoreQuotaError as exc:
            raise CallRefused(
                str(exc), scope_id=claim.scope_id, reason="idempotency_keys", retry_after=exc.retry_after
            ) from exc
        except StoreError as exc:
            raise CallStoreError(f"The call log cannot be asked for the key, so nothing was sent: {exc}") from exc
        except IdempotencyConflictError as exc:
            await self._emit("idempotency.conflict", asked, in_flight=exc.in_flight)
            raise
        if isinstance(entered, Leader):
            return Lead(self._parts, self._tracker, entered, replace(asked, claim=claim))
        await self._emit("idempotency.hit", asked)
        return _answer_of(entered, asked)

    async def _emit(self, name: str, asked: Asked, **facts: Any) -> None:
        if self._parts.hooks:
            await self._parts.hooks.emit(name, asked.context, call_id=asked.call_id, **facts)


class Lead:
    """The execution under a key: make the call `asked`, then `agree` on its result. Leaving without frees the key."""

    def __init__(self, parts: Parts, tracker: IdempotencyTracker, leader: Leader, asked: Asked) -> None:
        self.asked = asked
        self._parts = parts
        self._tracker = tracker
        self._leader = leader

    async def __aenter__(self) -> Self:
        self._parts.keeper.hold_claim(self._leader.claim)
        await self._emit("idempotency.start")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parts.keeper.let_go_claim(self._leader.claim)
        try:
            if error is not None:
                await self._parts.detached.run(self._free(self._leader.claim))
                await self._emit("idempotency.fail", error=getattr(error, "code", type(error).__name__))
        finally:
            self._leader.leave(error)

    async def agree(self, state: KeyState | None, result: Answer, *, offer: Offer, streamed: bool = False) -> Answer:
        """The key's one answer: `result`, unless somebody had taken the key over and was first.

        `state` is the key's after the result was stored. Raises CallFailed where a stream has said otherwise, and
        CallStoreError.
        """
        try:
            agreed = await self._agreed(state, result, offer)
        except StoreError as exc:
            raise CallStoreError(f"The answer came and could not be stored under its key: {exc}") from exc
        if streamed and agreed is not result:
            raise CallFailed("The key was taken over while this stream ran; ask again for the answer that counts.")
        self._leader.finish(agreed)
        await self._emit("idempotency.complete", attempt_id=agreed.attempt_id)
        return agreed

    def _is_ours(self, state: KeyState | None, result: Answer) -> bool:
        return isinstance(state, Done) and state.answer.attempt_id == result.attempt_id

    async def _agreed(self, state: KeyState | None, result: Answer, offer: Offer) -> Answer:
        while not self._is_ours(state, result):
            match state:
                case Done(answer):
                    return decode(self.asked.kind, answer.text)
                case Conflict():
                    return result  # it stands, though the key is another request's now
                case InFlight() | None:
                    kept = await self._tracker.follow(self._leader.claim, self._parts.log)
                    if kept is not None:
                        return decode(self.asked.kind, kept.text)
                    state = await offer()  # they gave up: unstored, the next one would get another answer
        return result

    async def _free(self, claim: Claim) -> None:
        try:
            await self._parts.log.fail(claim)
        except StoreError as exc:
            log.warning("An idempotency key stays held until its lease runs out: %s", exc)

    async def _emit(self, name: str, **facts: Any) -> None:
        if self._parts.hooks:
            await self._parts.hooks.emit(name, self.asked.context, call_id=self.asked.call_id, **facts)


def _answer_of(given: Given, asked: Asked) -> Answer:
    if given.text is not None:
        return decode(asked.kind, given.text)
    answer: Answer = given.value
    return again(answer)
