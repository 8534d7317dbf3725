"""What an engine is put together from: what it was given, and defaults for the rest, which it closes itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import replace

from llm_client.attempts import Asked, Parts, Request
from llm_client.breaker import BreakerConfig, Breakers
from llm_client.detached import Detached
from llm_client.guard import AdmitAll, Guard
from llm_client.hashing import request_hash
from llm_client.hooks import Hook, Hooks
from llm_client.leases import LeaseKeeper
from llm_client.limits import Limits
from llm_client.log import AttemptLog
from llm_client.prices import PriceBook
from llm_client.providers.protocol import Provider, Router
from llm_client.spec import RequestContext
from llmhub_runtime.errors import UnknownRoleError
from runtime_core.call_log.log import CallLog
from runtime_core.call_log.records import CallKind
from runtime_core.clock import Clock, SystemClock
from runtime_core.ids import IdSource, RandomIds
from runtime_core.stores.memory import MemoryDatabase

OWN_LOG_KEEPS_S = 600.0
"""A log in memory must not grow for ever."""


class OwnAndRouted:
    """The engine's own provider for requests without a role, or for its role; the router for all others."""

    def __init__(self, own: Provider | None, router: Router | None) -> None:
        if own is None and router is None:
            raise ValueError("ExecutionEngine needs a provider, a router, or both.")
        self.own = own
        self._router = router

    def provider(self, role: str | None) -> Provider:
        if self.own is not None and (role is None or role == self.own.target.role):
            return self.own
        if role is None:
            raise UnknownRoleError("The request names no role, and the engine has no provider of its own.")
        if self._router is None:
            raise UnknownRoleError(f"The engine has one provider and no router to find role '{role}'.", role=role)
        return self._router.provider(role)


class Assembly:
    """Opens and closes the parts of one engine."""

    def __init__(
        self,
        provider: Provider | None,
        router: Router | None,
        *,
        hooks: Sequence[Hook],
        breaker_config: BreakerConfig,
        max_concurrency: int | None,
        guard: Guard | None,
        log: AttemptLog | None,
        prices: PriceBook | None,
        clock: Clock | None,
        ids: IdSource | None,
        lease_s: float,
        claim_lease_s: float,
        keep_s: float | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self.providers = OwnAndRouted(provider, router)
        self._database = None
        if log is None:
            self._database = MemoryDatabase()
            log = CallLog(self._database, clock=clock)
        detached = Detached()
        keeper = LeaseKeeper(log, detached, lease_s=lease_s, claim_lease_s=claim_lease_s)
        keeper.keep_s = keep_s if self._database is None else OWN_LOG_KEEPS_S
        self.parts = Parts(
            log=log,
            guard=guard or AdmitAll(),
            limits=Limits(clock, max_concurrency),
            breakers=Breakers(breaker_config),
            hooks=Hooks(tuple(hooks)),
            prices=prices,
            router=self.providers,
            keeper=keeper,
            detached=detached,
            clock=clock,
            ids=ids or RandomIds(),
            lease_s=lease_s,
        )
        self.is_open = False
        self._opening = asyncio.Lock()

    def on(self, log: AttemptLog, guard: Guard) -> Assembly:
        """The same parts on another log, behind another guard; limits, circuits and clients are shared."""
        made, parts = copy(self), self.parts
        detached = Detached()
        keeper = parts.keeper.of(log, detached)
        made.parts = replace(parts, log=log, guard=guard, keeper=keeper, detached=detached)
        made._database, made._opening, made.is_open = None, asyncio.Lock(), False
        return made

    async def open(self) -> None:
        """Prepares the log. Does nothing the second time."""
        async with self._opening:
            if not self.is_open:
                await self.parts.log.prepare()
                self.is_open = True

    async def close(self) -> None:
        self.parts.keeper.stop()
        await self.parts.detached.drain()
        if self._database is not None:
            await self._database.close()

    async def warm_up(self, roles: Iterable[str]) -> None:
        providers = [self.providers.provider(role) for role in roles]
        for provider in [*([self.providers.own] if self.providers.own else []), *providers]:
            await provider.warm_up()

    def asked(self, request: Request, kind: CallKind, context: RequestContext, *, keep: bool) -> Asked:
        """The call that is wanted. Raises what the router raises for a role that is not there."""
        parts, target = self.parts, self.providers.provider(request.role).target
        deadline = None
        if context.deadline is not None:
            deadline = parts.clock.monotonic() + context.deadline - parts.clock.now().timestamp()
        return Asked(
            request=request,
            context=context,
            kind=kind,
            call_id=parts.ids.new("call"),
            target=target,
            request_hash=request_hash(target, request),
            deadline=deadline,
            keep=keep,
        )
