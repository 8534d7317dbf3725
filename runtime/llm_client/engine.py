"""`ExecutionEngine`: the one road of every model call.

The order of its layers, outermost first: idempotency key, response cache, fallback roles, attempts with their
pauses; and for each attempt the guard, the role's limits, the circuit breaker, the row in the call log, the provider.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing, nullcontext
from copy import copy
from types import TracebackType
from typing import Self, cast

from llm_client.assembly import Assembly
from llm_client.attempts import LEASE_S, Asked, Parts, Request
from llm_client.breaker import BreakerConfig
from llm_client.cache import ResponseCache
from llm_client.cached import Answer, CachedAnswers
from llm_client.calls import Call
from llm_client.cancellation import CancellationToken
from llm_client.errors import CallCancelled, CallFailed
from llm_client.events import StreamEnded, StreamEvent, StreamFailed
from llm_client.fallback import chain_of
from llm_client.guard import Guard
from llm_client.hooks import Hook
from llm_client.idempotency import IdempotencyTracker
from llm_client.keyed import KeyedCalls, Lead
from llm_client.log import AttemptLog
from llm_client.prices import PriceBook
from llm_client.providers.protocol import Provider, Router, Target
from llm_client.replay import events_of
from llm_client.results import CompletionResult, EmbeddingResult
from llm_client.retry import AttemptBudget, RetryPolicy, Tries
from llm_client.spec import EmbeddingSpec, RequestContext, RequestSpec
from runtime_core.call_log.records import CallKind
from runtime_core.clock import Clock
from runtime_core.frozen import unchecked
from runtime_core.ids import IdSource

OpenAccounts = Callable[[Parts], tuple[Guard, AttemptLog]]
"""From the parts of an engine to a guard and a log that belong together."""


class ExecutionEngine:
    """Makes model calls (source: agent-runtime, llm-client changes).

    Give it a `provider`, or a `router` that finds providers by role, or both: a request without a role goes to
    the provider. Everything else has a default that fits one process: `log` is a call log in memory, which
    forgets after some minutes; `guard` admits everything; without `cache` every request is sent; `prices` are
    asked where llmhub.yaml says none. `max_concurrency` bounds the calls in flight. `keep_s` lets a `log` that is
    nobody else's forget what ended that many seconds ago.

    An engine belongs to one event loop. It closes what it made itself: use it with `async with`, or `aclose()`.

    The calling methods raise CallFailed and its kinds for what the provider does, after all attempts; CallRefused
    for the guard's no; CallCancelled; CallStoreError when the log cannot be written, before anything is sent;
    IdempotencyConflictError; and llmhub_runtime's UnknownRoleError and ConfigError.
    """

    def __init__(
        self,
        provider: Provider | None = None,
        router: Router | None = None,
        *,
        cache: ResponseCache | None = None,
        hooks: Hook | Sequence[Hook] = (),
        retry: RetryPolicy | None = None,
        breaker_config: BreakerConfig | None = None,
        max_concurrency: int | None = None,
        idempotency_tracker: IdempotencyTracker | None = None,
        guard: Guard | None = None,
        log: AttemptLog | None = None,
        prices: PriceBook | None = None,
        clock: Clock | None = None,
        ids: IdSource | None = None,
        rng: Callable[[], float] = random.random,
        lease_s: float = LEASE_S,
        keep_s: float | None = None,
    ) -> None:
        tracker = idempotency_tracker or IdempotencyTracker()
        self._retry = retry or RetryPolicy()
        self._draw = rng
        self._assembly = Assembly(
            provider,
            router,
            hooks=(hooks,) if callable(hooks) else tuple(hooks),
            breaker_config=breaker_config or BreakerConfig(),
            max_concurrency=max_concurrency,
            guard=guard,
            log=log,
            prices=prices,
            clock=clock,
            ids=ids,
            lease_s=lease_s,
            claim_lease_s=tracker.request_timeout,
            keep_s=keep_s,
        )
        self._cache, self._tracker = cache, tracker
        self._share()

    async def complete(
        self,
        spec: RequestSpec,
        *,
        context: RequestContext | None = None,
        idempotency_key: str | None = None,
        attempts: AttemptBudget | None = None,
        cancellation: CancellationToken | None = None,
    ) -> CompletionResult:
        """The whole answer. `attempts` are the tries that this call shares with others, such as a node's own."""
        asked = await self._asked(spec, CallKind.CHAT, context, idempotency_key)
        return cast("CompletionResult", await self._answer(asked, idempotency_key, attempts, cancellation))

    async def embed(
        self,
        spec: EmbeddingSpec,
        *,
        context: RequestContext | None = None,
        idempotency_key: str | None = None,
        attempts: AttemptBudget | None = None,
        cancellation: CancellationToken | None = None,
    ) -> EmbeddingResult:
        """One vector for each input. The log keeps them only where a key or the cache will ask for them."""
        asked = await self._asked(spec, CallKind.EMBEDDING, context, idempotency_key)
        return cast("EmbeddingResult", await self._answer(asked, idempotency_key, attempts, cancellation))

    async def stream(
        self,
        spec: RequestSpec,
        *,
        context: RequestContext | None = None,
        idempotency_key: str | None = None,
        attempts: AttemptBudget | None = None,
        cancellation: CancellationToken | None = None,
    ) -> AsyncGenerator[StreamEvent]:
        """The answer as it comes. The last event is StreamEnded or StreamFailed.

        A failing provider and a cancelled token are StreamFailed; what refuses the call before it begins is raised,
        as with `complete`. Leave it early with `contextlib.aclosing`, and the upstream is closed at once.
        """
        asked = await self._asked(spec, CallKind.STREAM, context, idempotency_key)
        events = self._events(asked, idempotency_key, attempts)
        try:
            async with aclosing(events):
                while True:
                    async with cancellation.scope() if cancellation else nullcontext():
                        event = await anext(events, None)
                    if event is None:
                        return
                    yield event
        except CallFailed as exc:
            yield StreamFailed(code=exc.code, message=str(exc), retry_after=exc.retry_after)
        except CallCancelled as exc:
            yield StreamFailed(code=exc.code, message=str(exc))

    async def warm_up(self, roles: Iterable[str] = ()) -> None:
        """Opens the log, and makes the clients of these roles and of the engine's own provider."""
        await self._assembly.open()
        await self._assembly.warm_up(roles)

    def target(self, role: str | None = None) -> Target:
        """Which model a role is; None is the engine's own provider. Raises UnknownRoleError, ConfigError."""
        return self._assembly.providers.provider(role).target

    def forget_failures(self, provider: str) -> None:
        """The provider was replaced or moved: what its circuit breakers learnt says nothing about it any more."""
        self._assembly.parts.breakers.forget(provider)

    def accounted(self, open_accounts: OpenAccounts) -> Self:
        """The same engine with another guard and log, which `open_accounts` makes; close it as well.

        Providers, limits, circuit breakers and hooks are shared. Idempotency keys are those of the new log.
        """
        guard, log = open_accounts(self._assembly.parts)
        made = copy(self)
        made._assembly = self._assembly.on(log, guard)
        made._share()
        return made

    def _share(self) -> None:
        """What keys and the cache need of the parts."""
        self._cached = CachedAnswers(self._assembly.parts, self._cache)
        self._keys = KeyedCalls(self._assembly.parts, self._tracker)

    async def aclose(self) -> None:
        """Waits until what is ending has ended, and closes what the engine made itself."""
        await self._assembly.close()

    async def __aenter__(self) -> Self:
        await self._assembly.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _asked(self, request: Request, kind: CallKind, context: RequestContext | None, key: str | None) -> Asked:
        if not self._assembly.is_open:
            await self._assembly.open()
        keep = kind is not CallKind.EMBEDDING or key is not None or self._cache is not None
        return self._assembly.asked(request, kind, context or RequestContext(), keep=keep)

    async def _answer(
        self,
        asked: Asked,
        key: str | None,
        attempts: AttemptBudget | None,
        cancellation: CancellationToken | None,
    ) -> Answer:
        if cancellation is not None:
            async with cancellation.scope():
                return await self._answer(asked, key, attempts, None)
        if key is None:
            kept = await self._cached.look(asked)
            return kept if kept is not None else (await self._called(asked, attempts))[0]
        entered = await self._keys.enter(asked, key)
        if not isinstance(entered, Lead):
            return entered
        async with entered:
            result, call = await self._called(entered.asked, attempts)
            return await entered.agree(call.key_state, result, offer=call.offer)

    async def _called(self, asked: Asked, attempts: AttemptBudget | None) -> tuple[Answer, Call]:
        call = self._call(asked, attempts)
        result = await call.answer()
        await self._cached.keep(asked, call.request_hash, result)
        return result, call

    async def _events(
        self, asked: Asked, key: str | None, attempts: AttemptBudget | None
    ) -> AsyncGenerator[StreamEvent]:
        if key is None:
            kept = await self._cached.look(asked)
            entered = None
        else:
            entered = await self._keys.enter(asked, key)
            kept = None if isinstance(entered, Lead) else entered
        if isinstance(kept, CompletionResult):
            for event in events_of(kept):
                yield event
            return
        lead = entered if isinstance(entered, Lead) else None
        async with lead or nullcontext(), aclosing(self._streamed(asked, lead, attempts)) as events:
            async for event in events:
                yield event

    async def _streamed(
        self, asked: Asked, lead: Lead | None, attempts: AttemptBudget | None
    ) -> AsyncGenerator[StreamEvent]:
        call = self._call(asked if lead is None else lead.asked, attempts)
        async with aclosing(call.stream()) as events:
            async for event in events:
                if not isinstance(event, CompletionResult):
                    yield event
                    continue
                await self._cached.keep(asked, call.request_hash, event)
                if lead is not None:
                    await lead.agree(call.key_state, event, offer=call.offer, streamed=True)
                yield unchecked(StreamEnded, kind="ended", result=event)

    def _call(self, asked: Asked, attempts: AttemptBudget | None) -> Call:
        providers = self._assembly.providers
        chain = chain_of(providers.provider(asked.request.role), providers)
        budget = attempts or AttemptBudget(self._retry.attempts)
        return Call(self._assembly.parts, asked, Tries(chain, self._retry, budget, draw=self._draw))
