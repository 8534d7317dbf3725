"""One attempt at a model: guard, limits, circuit, row; then the provider; then, whatever happened, the row's end.

The row is written before the provider is asked and ended after it, by a task that the caller's cancellation does
not reach. The guard's lease ends right after the row, exactly once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from llm_client.breaker import Breakers
from llm_client.detached import Detached
from llm_client.errors import CallFailed, CallRateLimited, CallRefused, CallStoreError, CallTimedOut, CallUnavailable
from llm_client.failures import NOTHING, Delivered, judge
from llm_client.guard import AdmissionChanged, Guard, Lease, NoLease
from llm_client.hashing import request_hash
from llm_client.hooks import Hooks
from llm_client.leases import LeaseKeeper
from llm_client.limits import Limits, OverLimit, Slot
from llm_client.log import AttemptLog
from llm_client.prices import PriceBook, cost_micro, price_for
from llm_client.providers.protocol import Provider, Router, Target
from llm_client.results import CompletionResult, EmbeddingResult
from llm_client.retry import Failure
from llm_client.spec import EmbeddingSpec, RequestContext, RequestSpec
from llm_client.usage import estimated_input
from runtime_core.call_log.keys import Claim, KeyState
from runtime_core.call_log.records import MOST_TOKENS, Attempt, AttemptStatus, CallKind, Ending, Usage
from runtime_core.clock import Clock
from runtime_core.errors import AgentflowError, StoreConflictError, StoreError, StoreUnavailableError
from runtime_core.frozen import changed, unchecked
from runtime_core.ids import IdSource

log = logging.getLogger(__name__)

Request = RequestSpec | EmbeddingSpec
Result = TypeVar("Result", bound=CompletionResult | EmbeddingResult)
T = TypeVar("T")

LEASE_S = 60.0
_STALE_S = 1.0
"""A guard that took longer has asked a person, or a store that was slow: by now it is another minute, or day."""
DEFAULT_TIMEOUT_S = 600.0
"""For an attempt whose role has no timeout_s and whose caller has no deadline."""
_STORE_PAUSES_S = (0.05, 0.2, 0.8)


class AttemptFailed(Exception):
    """Between the layers: `error` is the caller's if nothing else is tried; `delivered` if it has seen a part."""

    def __init__(self, error: CallFailed, failure: Failure, *, delivered: bool = False) -> None:
        super().__init__(str(error))
        self.error = error
        self.failure = failure
        self.delivered = delivered


@dataclass(frozen=True, slots=True)
class Asked:
    """One call, over all of its attempts.

    `request_hash` is of the request to `target`, the first one asked. `deadline` is on the monotonic clock; `keep`
    stores the answer.
    """

    request: Request
    context: RequestContext
    kind: CallKind
    call_id: str
    target: Target
    request_hash: str
    deadline: float | None = None
    claim: Claim | None = None
    keep: bool = True


@dataclass(frozen=True, slots=True)
class Parts:
    """What the attempts of an engine share."""

    log: AttemptLog
    guard: Guard
    limits: Limits
    breakers: Breakers
    hooks: Hooks
    prices: PriceBook | None
    router: Router
    keeper: LeaseKeeper
    detached: Detached
    clock: Clock
    ids: IdSource
    lease_s: float

    def left_s(self, deadline: float | None) -> float | None:
        """Seconds until the deadline, below zero when it has passed."""
        return None if deadline is None else deadline - self.clock.monotonic()


async def open_attempt(parts: Parts, asked: Asked, provider: Provider, number: int) -> OpenAttempt:
    """Everything before the provider is asked. Raises AttemptFailed, CallRefused, CallStoreError."""
    attempt = _attempt(parts, asked, provider.target, asked.request, number)
    lease = await parts.guard.begin(attempt, asked.request)
    if parts.log.now() - attempt.reserved_at > _STALE_S:
        attempt = _reserved_now(parts, attempt)
    opened = OpenAttempt(parts, asked, provider, asked.request, attempt, lease)
    try:
        opened.apply_admission()
        await opened.enter()
    except BaseException:
        await opened.withdraw()
        raise
    return opened


class OpenAttempt:
    """An attempt that the guard has admitted. `settle` or `fail` it, once, after the provider was asked."""

    def __init__(
        self, parts: Parts, asked: Asked, provider: Provider, request: Request, attempt: Attempt, lease: Lease
    ) -> None:
        self.provider = provider
        self.request = request
        self.attempt = attempt
        self.key_state: KeyState | None = None
        self._parts = parts
        self._asked = asked
        self._lease = lease
        self._slot: Slot | None = None
        self._reserving = False
        self._admitted_in: int | None = None
        self._settled: Ending | None = None

    @property
    def attempt_id(self) -> str:
        return self.attempt.attempt_id

    def _time_limit(self) -> float | None:
        """Seconds that this attempt may take; None where the role's own timeout is the tighter one."""
        left, own = self._parts.left_s(self._asked.deadline), self.provider.target.timeout_s
        if own is None and self.request.params.get("timeout") is None:
            return DEFAULT_TIMEOUT_S if left is None else left
        return None if left is None or (own is not None and own <= left) else left

    async def within_time(self, work: Awaitable[T]) -> T:
        """Raises CallTimedOut."""
        limit = self._time_limit()
        if limit is None:
            return await work
        bound = asyncio.timeout(max(limit, 0))
        try:
            async with bound:
                return await work
        except TimeoutError as exc:
            raise self._timed_out() from exc

    def _timed_out(self) -> CallTimedOut:
        target = self.provider.target
        return CallTimedOut(
            f"Role '{target.role}': {target.provider}/{target.model} did not answer before the deadline of the call.",
            role=target.role,
            provider=target.provider,
            model=target.model,
        )

    def apply_admission(self) -> None:
        """What the guard changed: a smaller answer, another role."""
        admission, parts = self._lease.admission, self._parts
        before, self.request = self.request, self._asked.request
        if admission.role is not None and admission.role != self.provider.target.role:
            self.provider = parts.router.provider(admission.role)
        if admission.max_tokens is not None and isinstance(self.request, RequestSpec):
            self.request = _capped(self.request, self.provider.target, admission.max_tokens)
        if self.request is not before or self.provider.target.role != self.attempt.role:
            renewed = _attempt(parts, self._asked, self.provider.target, self.request, self.attempt.number)
            self.attempt = changed(renewed, attempt_id=self.attempt.attempt_id)

    async def enter(self) -> None:
        """Wait for a place, ask the circuit breaker, and write the row."""
        parts, target = self._parts, self.provider.target
        if not parts.limits.free(target):
            await self._wait_for_place(target)
        if (wait := parts.breakers.admit((target.provider, target.model), parts.clock.monotonic())) is not None:
            await self._refused_by_breaker(target, wait)
        self._admitted_in = parts.breakers.life(target.provider)
        self._reserving = True
        try:
            while not await self._reserved():
                self.apply_admission()
        except CallRefused:  # by a log that keeps budgets: there is no row
            self._reserving = False
            raise
        except StoreError as exc:
            raise CallStoreError(f"The call log cannot be written, so nothing was sent: {exc}") from exc
        parts.keeper.hold(self.attempt.key, self.attempt.lease_until)
        if parts.hooks:
            await parts.hooks.emit("attempt.start", self._asked.context, **self._facts())

    async def _reserved(self) -> bool:
        try:
            await self._parts.log.reserve(self.attempt)
        except AdmissionChanged:
            return False
        return True

    async def settle(self, answer: Result) -> Result:
        """The answer, with what it cost; its row is ended and its text kept. Raises CallStoreError (see below)."""
        target = self.provider.target
        cost = cost_micro(answer.usage, price_for(target, self._parts.prices))
        result = changed(
            answer,
            cost_micro=cost,
            role=target.role,
            provider=target.provider,
            model=target.model,
            attempt_id=self.attempt.attempt_id,
            attempts=self.attempt.number,
        )
        text = result.model_dump_json() if self._asked.keep else None
        self._settled = ending = self._ending(AttemptStatus.SETTLED, answer.usage, cost, answer=text)
        problem = await self._end(ending, alive=True)
        # Unstored, an answer under a key would be another one the next time; without a key it is still an answer.
        if problem is not None and self._asked.claim is not None:
            raise CallStoreError(f"The answer came and could not be stored under its key: {problem}") from problem
        return result

    async def offer(self) -> KeyState | None:
        """The settled answer to its key once more, which was somebody else's before; the key as it is then."""
        claim, ending = self._asked.claim, self._settled
        assert claim is not None and ending is not None
        return (await self._parts.log.end_with_claim(self.attempt, ending, claim)).key

    async def fail(self, exc: BaseException, delivered: Delivered = NOTHING) -> None:
        """End the row for `exc`. Raises AttemptFailed in its place, unless it is not the provider's."""
        judgement = judge(exc, self.request, delivered=delivered, max_output=self.attempt.max_output_tokens)
        cost = cost_micro(judgement.usage, price_for(self.provider.target, self._parts.prices))
        ending = self._ending(judgement.status, judgement.usage, cost, error=judgement.code)
        await self._end(ending, alive=judgement.alive)
        if judgement.error is not None:
            raise AttemptFailed(judgement.error, judgement.failure, delivered=delivered.text_bytes > 0) from exc

    async def withdraw(self) -> None:
        """The provider was not asked: the lease, and the row if it was begun, are released."""
        await self._end(self._ending(AttemptStatus.RELEASED, None, None, error="not_sent"), alive=None)

    def _ending(
        self,
        status: AttemptStatus,
        usage: Usage | None,
        cost: int | None,
        *,
        error: str | None = None,
        answer: str | None = None,
    ) -> Ending:
        now = self._parts.log.now()
        return unchecked(Ending, status=status, ended_at=now, usage=usage, cost_micro=cost, error=error, answer=answer)

    async def _end(self, ending: Ending, *, alive: bool | None) -> StoreError | None:
        """Let go of everything, and write the end where no cancellation reaches. What kept it from being stored."""
        parts, target = self._parts, self.provider.target
        parts.keeper.let_go(self.attempt.key)
        if self._slot is not None:
            used = ending.usage
            self._slot.release(None if used is None else used.input + used.output)
        changed = None
        if self._admitted_in == parts.breakers.life(target.provider):
            now = parts.clock.monotonic()
            changed = parts.breakers.report((target.provider, target.model), now, succeeded=alive)
        return await self._written(ending, changed)

    async def _written(self, ending: Ending, circuit: str | None) -> StoreError | None:
        """`_write` where no cancellation reaches it, but without a task of its own where one write is all there is.

        That write is the database's once it was accepted, and repeating it with the same ids changes nothing. Each
        turn of the loop between an answer and the next request leaves a connection idle, and the HTTP client looks
        at all the idle ones.
        """
        parts = self._parts
        if self._reserving and not parts.hooks and isinstance(self._lease, NoLease):
            try:
                await self._store_once(ending)
            except asyncio.CancelledError:
                parts.detached.start(self._write(ending, circuit))
                raise
            except StoreError:
                log.debug("The end of attempt %s is written once more.", self.attempt_id)
            else:
                self._lease.ended(ending)
                return None
        return await parts.detached.run(self._write(ending, circuit))

    async def _write(self, ending: Ending, circuit: str | None) -> StoreError | None:
        problem = None
        if self._reserving:
            try:
                await self._store(ending)
            except StoreError as exc:
                problem = exc
                # The row stays reserved; its lease runs out and it is counted as unknown.
                if not isinstance(exc, StoreConflictError) or ending.status is not AttemptStatus.RELEASED:
                    log.error("Attempt %s ended as %s, unwritten: %s", self.attempt_id, ending.status.value, exc)
        try:
            await self._lease.end(ending)
        except AgentflowError:
            log.exception("The guard could not end attempt %s.", self.attempt_id)
        if hooks := self._parts.hooks:
            context, facts = self._asked.context, self._facts()
            await hooks.emit(f"attempt.{ending.status.value}", context, **facts, error=ending.error)
            if circuit is not None:
                await hooks.emit(f"breaker.{circuit}", context, **facts)
        return problem

    async def _store(self, ending: Ending) -> None:
        for pause in (*_STORE_PAUSES_S, None):
            try:
                await self._store_once(ending)
                return
            except StoreUnavailableError:
                if pause is None:
                    raise
                await self._parts.clock.sleep(pause)

    async def _store_once(self, ending: Ending) -> None:
        claim, call_log = self._asked.claim, self._parts.log
        if claim is not None and ending.answer is not None:
            completion = await call_log.end_with_claim(self.attempt, ending, claim)
            self.key_state = completion.key
        else:
            await call_log.end(self.attempt, ending)

    async def _wait_for_place(self, target: Target) -> None:
        estimate = estimated_input(self.request) if target.tokens_per_minute else 0
        left = self._parts.left_s(self._asked.deadline)
        try:
            self._slot = await self._parts.limits.acquire(target, estimate=estimate, left_s=left)
        except OverLimit as exc:
            error = CallRateLimited(
                str(exc),
                role=target.role,
                provider=target.provider,
                model=target.model,
                retry_after=exc.retry_after,
            )
            raise AttemptFailed(error, Failure(retry=False, fallback=True)) from exc
        self.attempt = _reserved_now(self._parts, self.attempt)

    async def _refused_by_breaker(self, target: Target, wait: float) -> None:
        if self._parts.hooks:
            await self._parts.hooks.emit("breaker.refused", self._asked.context, **self._facts(), wait_s=wait)
        error = CallUnavailable(
            f"{target.provider}/{target.model} has kept failing and is left alone for another {wait:.0f} s.",
            role=target.role,
            provider=target.provider,
            model=target.model,
            retry_after=wait,
        )
        raise AttemptFailed(error, Failure(retry=False, fallback=True))

    def _facts(self) -> dict[str, object]:
        attempt = self.attempt
        return {
            "attempt_id": attempt.attempt_id,
            "call_id": attempt.call_id,
            "number": attempt.number,
            "role": attempt.role,
            "provider": attempt.provider,
            "model": attempt.model,
        }


async def ask(opened: OpenAttempt) -> CompletionResult | EmbeddingResult:
    """The provider's answer, within the time that the attempt has."""
    request, provider = opened.request, opened.provider
    if isinstance(request, EmbeddingSpec):
        return await opened.within_time(provider.embed(request, attempt_id=opened.attempt_id))
    return await opened.within_time(provider.complete(request, attempt_id=opened.attempt_id))


def _attempt(parts: Parts, asked: Asked, target: Target, request: Request, number: int) -> Attempt:
    context, now = asked.context, parts.log.now()
    same = request is asked.request and target is asked.target
    return unchecked(  # the context was checked when the request came in, the target with its llmhub.yaml
        Attempt,
        scope_id=context.tenant_id,
        attempt_id=parts.ids.new("att"),
        call_id=asked.call_id,
        number=number,
        kind=asked.kind,
        role=target.role,
        provider=target.provider,
        model=target.model,
        request_hash=asked.request_hash if same else request_hash(target, request),
        reserved_at=now,
        lease_until=now + parts.lease_s,
        max_output_tokens=_max_output(request, target),
        principal_id=context.user_id,
        run_id=context.run_id,
        node=context.node,
        session_id=context.session_id,
        job_id=context.job_id,
        trace_id=context.trace_id,
    )


def _reserved_now(parts: Parts, attempt: Attempt) -> Attempt:
    now = parts.log.now()
    return changed(attempt, reserved_at=now, lease_until=now + parts.lease_s)


def _max_output(request: Request, target: Target) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = request.params.get(name, target.params.get(name))
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return min(value, MOST_TOKENS)
    return None


def _capped(request: RequestSpec, target: Target, most: int) -> RequestSpec:
    asked = _max_output(request, target)
    if asked is not None and asked <= most:
        return request
    name = "max_completion_tokens" if "max_completion_tokens" in {**target.params, **request.params} else "max_tokens"
    return request.model_copy(update={"params": {**request.params, name: most}})
