"""Tool calls in the ledger: reserved before they are made, settled after, whoever makes them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from agent_runtime.ledger import holds
from agent_runtime.ledger.amounts import Amounts, to_ms
from agent_runtime.ledger.decide import Refusal
from agent_runtime.ledger.ops import Row
from agent_runtime.ledger.records import TOOL, Entry, EventState, Used
from agent_runtime.ledger.writers import SqlLedgerWriter
from agent_runtime.policy.decide import Caller, Subject
from agent_runtime.repeat import until_known
from llm_client.agent.middleware.chain import Next, ToolInvocation
from llm_client.detached import Detached
from llm_client.errors import CallStoreError
from runtime_core.clock import Clock, SteadyTime, SystemClock
from runtime_core.errors import StoreError
from runtime_core.ids import IdSource, RandomIds
from runtime_core.stores.scope import in_scope
from runtime_core.stores.sql import Op

log = logging.getLogger(__name__)

GRACE_S = 60.0
"""After its time a call that nobody has ended is counted as unknown, with all that it may have taken."""


class ToolLedger:
    """Makes no tool call that does not fit every budget of its scope, principal and run.

    `aclose()` waits until every call has its end in the ledger.
    """

    def __init__(self, writer: SqlLedgerWriter, *, clock: Clock | None = None, ids: IdSource | None = None) -> None:
        self._writer = writer
        self._clock = clock or SystemClock()
        self._ids = ids or RandomIds()
        self._commits = Detached()
        self._now = SteadyTime(self._clock).now

    @asynccontextmanager
    async def call(
        self, who: Subject, tool: str, *, most_s: float = 0.0, budgeted: bool = False
    ) -> AsyncGenerator[None]:
        """Around one call, which ends within `most_s` seconds; without that its time is counted only afterwards.

        `budgeted`: its run has a budget, and makes no call when that is gone. Raises BudgetExceededError before the
        call is made, CallStoreError where nobody can tell whether it may be.
        """
        entry = self._entry(who, tool, most_s, budgeted=budgeted)
        await self._reserve(entry)
        began = self._clock.monotonic()
        try:
            yield
        finally:
            actual = Amounts(tool_calls=1, runtime_ms=to_ms(self._clock.monotonic() - began))
            await self._commits.run(self._end(entry, Used(EventState.SETTLED, self._now(), actual)))

    async def aclose(self) -> None:
        await self._commits.drain()

    async def _reserve(self, entry: Entry) -> None:
        """A caller who leaves in the middle leaves nothing reserved."""
        gone = reserved = False

        async def reserve() -> Refusal | None:
            nonlocal reserved
            hold = in_scope(entry.scope_id, lambda: holds.reserve(entry))
            refusal = await until_known(lambda: self._writer.run(hold), self._clock)
            reserved = refusal is None
            if gone and reserved:
                await self._release(entry)
            return refusal

        try:
            refusal = await self._commits.run(reserve())
        except asyncio.CancelledError:
            gone = True
            if reserved:
                self._commits.start(self._release(entry))
            raise
        except StoreError as exc:
            self._commits.start(self._release(entry))  # it may be stored all the same
            raise CallStoreError(f"The budgets cannot be read, so the tool was not called: {exc}") from exc
        if refusal is not None:
            raise refusal.error()

    async def _release(self, entry: Entry) -> None:
        await self._end(entry, Used(EventState.RELEASED, self._now(), Amounts()))

    async def _end(self, entry: Entry, used: Used) -> None:
        try:
            ended = in_scope(entry.scope_id, lambda: _ended(entry, used))
            await until_known(lambda: self._writer.run(ended), self._clock)
        except StoreError:  # what the tool did is done; its lease runs out, and it is counted as unknown
            log.exception("The end of the tool call %s could not be written.", entry.event_id)

    def _entry(self, who: Subject, tool: str, most_s: float, *, budgeted: bool) -> Entry:
        now = self._now()
        return Entry(
            scope_id=who.scope_id,
            event_id=self._ids.new("tool"),
            type=TOOL,
            at=now,
            most=Amounts(tool_calls=1, runtime_ms=to_ms(most_s)),
            principal_id=who.principal_id,
            run_id=who.run_id,
            job_id=who.job_id,
            lease_until=now + most_s + GRACE_S,
            detail=tool,
            budgeted=budgeted,
        )


AllowedSeconds = Callable[[ToolInvocation], float]
"""How long a call may take at most."""


class LedgerMiddleware:
    """A Middleware of llm_client's agents: a call that fits no budget is not made, and the model is told why.

    `who` says on whose behalf a call is made, and `budgeted` whether its run has a budget; left out, it is the context
    of the agent's run, which has none. Put it outside of what tries a call again, and of what ends it after
    `allowed_s`.
    """

    def __init__(
        self,
        ledger: ToolLedger,
        *,
        allowed_s: AllowedSeconds | None = None,
        who: Callable[[ToolInvocation], Subject] | None = None,
        budgeted: Callable[[], bool] = lambda: False,
    ) -> None:
        self._ledger = ledger
        self._allowed_s = allowed_s or _own_limit
        self._who = who or _caller
        self._budgeted = budgeted

    async def __call__(self, call: ToolInvocation, next: Next) -> str:
        """Raises what ToolLedger.call raises."""
        who, most_s = self._who(call), self._allowed_s(call)
        async with self._ledger.call(who, call.tool.name, most_s=most_s, budgeted=self._budgeted()):
            return await next(call)


def _ended(entry: Entry, used: Used) -> Op[Row | None]:
    return (yield from holds.end(entry.scope_id, entry.event_id, used, run_id=entry.run_id if entry.budgeted else None))


def _own_limit(call: ToolInvocation) -> float:
    return call.tool.timeout_s or 0.0


def _caller(call: ToolInvocation) -> Subject:
    context = call.context
    return Caller(context.tenant_id, context.user_id, context.run_id, context.job_id)
