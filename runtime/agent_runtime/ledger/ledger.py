"""`Ledger`: budgets, reservations and the record of everything that was used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from decimal import Decimal
from typing import Any, TypeVar

from agent_runtime.ledger import budget_ops, finds, ops, runs
from agent_runtime.ledger.amounts import Amounts, to_micro, to_ms
from agent_runtime.ledger.budgets import Account, Budget
from agent_runtime.ledger.decide import BudgetAnswer, BudgetDecision, Wanted
from agent_runtime.ledger.export import as_csv, as_json
from agent_runtime.ledger.finds import EventCursor, EventFilter, EventPage
from agent_runtime.ledger.records import (
    MODEL,
    TOOL,
    USAGE,
    Entry,
    EventState,
    LedgerEvent,
    LedgerUsage,
    Reservation,
    Used,
)
from agent_runtime.ledger.schema import event_of
from agent_runtime.ledger.writers import SqlLedgerWriter
from agent_runtime.repeat import until_known
from runtime_core.call_log.records import Usage
from runtime_core.clock import Clock, SteadyTime, SystemClock
from runtime_core.context import ExecutionContext, Identity
from runtime_core.errors import StoreConflictError
from runtime_core.ids import IdSource, RandomIds, check_scope_id
from runtime_core.stores.joint import Joint
from runtime_core.stores.scope import everywhere, in_scope
from runtime_core.stores.sql import Op, OpFactory

T = TypeVar("T")

LEASE_S = 60.0
_EXPORTED_AT_ONCE = 500


class Ledger:
    """Nothing is spent unseen, and no budget is overrun (source: agent-runtime, Ledger).

    A reservation is made if and only if what is spent, what is reserved and its own maximum fit every budget that
    applies: of the scope, the principal, the role, the run and the runs above it. One that nobody settles, renews or
    releases within `lease_s` is counted as its maximum, and reported as unknown.

    Contexts are ExecutionContext, or any Identity. The methods raise errors of the StoreError tree; IdentityError for
    a scope that is not in its one spelling.
    """

    def __init__(
        self,
        writer: SqlLedgerWriter,
        *,
        clock: Clock | None = None,
        ids: IdSource | None = None,
        lease_s: float = LEASE_S,
    ) -> None:
        self._writer = writer
        self._clock = clock or SystemClock()
        self._ids = ids or RandomIds()
        self._lease_s = lease_s
        self._time = SteadyTime(self._clock)
        self._unset: list[_Setting] = []

    def now(self) -> float:
        """Seconds since the epoch; a wall clock that is set changes no window and no lease."""
        return self._time.now()

    def set_budget(self, budget: Budget) -> Awaitable[None]:
        """Replace the budget of its scope, principal, role and run. What was used before counts.

        Await it: it is stored when that returns. Without an await it is stored before this ledger's next operation,
        which is soon enough only for one in memory.
        """
        return _Setting(budget, self._store_budget, self._unset)

    async def _store_budget(self, budget: Budget) -> None:
        event_id, now = self._ids.new("evt"), self.now()
        setting = in_scope(budget.scope_id, lambda: budget_ops.set_budget(budget, event_id, now))
        await until_known(lambda: self._writer.run(setting), self._clock)

    async def remove_budget(self, budget: Budget) -> bool:
        """Of the same scope, principal, role and run; its limits do not matter. False if there was none."""
        event_id, now = self._ids.new("evt"), self.now()
        return await self._run(
            in_scope(budget.scope_id, lambda: budget_ops.remove_budget(budget.account, event_id, now))
        )

    async def budgets(self, scope_id: str, *, after: Budget | None = None, limit: int = 100) -> list[Budget]:
        """The scope's own first; `after` is the last one of the page before."""
        check_scope_id(scope_id)
        place = None if after is None else after.account
        return await self._read(in_scope(scope_id, lambda: budget_ops.list_budgets(scope_id, place, limit)))

    async def check_budget(
        self,
        ctx: Identity,
        *,
        pending_tokens: int = 0,
        pending_cost: Decimal | float = 0,
        requests: int = 0,
        tool_calls: int = 0,
        turns: int = 0,
        runtime_seconds: float = 0,
        role: str | None = None,
    ) -> BudgetAnswer:
        """Whether that would fit now. It holds nothing back: only `reserve` makes sure of it.

        The answer equals BudgetDecision.ALLOW or DENY, and has the `reason`.
        """
        most = _amounts(pending_tokens, pending_cost, requests, tool_calls, turns, runtime_seconds)
        wanted = Wanted(most, int(self.now()))
        account = _account(ctx, role)
        refusal = await self._read(in_scope(account.scope_id, lambda: ops.check(account, wanted)))
        return BudgetAnswer(BudgetDecision.ALLOW if refusal is None else BudgetDecision.DENY, refusal)

    async def reserve(
        self,
        ctx: Identity,
        *,
        tokens: int = 0,
        cost: Decimal | float | None = 0,
        requests: int = 0,
        tool_calls: int = 0,
        turns: int = 0,
        runtime_seconds: float = 0,
        role: str | None = None,
        reservation_id: str | None = None,
    ) -> Reservation:
        """Hold back the most that something may take; `cost` in dollars, None where no price is known.

        Raises BudgetExceededError, whose `limit`, `window` and `retry_after` say which one and until when. The same
        `reservation_id` again, within the same second of the same clock, is the same reservation.
        """
        most = _amounts(tokens, cost or 0, requests, tool_calls, turns, runtime_seconds)
        entry = self._entry(
            ctx, reservation_id or self._ids.new("rsv"), USAGE, most, role=role, priced=cost is not None
        )
        refusal = await self._run(Joint(ops.reserve_all, entry, entry.scope_id))
        if refusal is not None:
            raise refusal.error()
        assert entry.lease_until is not None
        return Reservation(entry.scope_id, entry.event_id, most, entry.lease_until)

    async def renew(self, reservation: Reservation) -> bool:
        """Hold it for another `lease_s`; False if it has ended, or lapsed."""
        until = self.now() + self._lease_s
        scope_id, event_id = reservation.scope_id, reservation.reservation_id
        return await self._run(in_scope(scope_id, lambda: ops.renew(scope_id, event_id, until)))

    async def settle(
        self,
        reservation: Reservation,
        usage: Usage | None = None,
        *,
        cost: Decimal | float | None = None,
        requests: int | None = None,
        tool_calls: int | None = None,
        turns: int | None = None,
        runtime_seconds: float | None = None,
    ) -> LedgerEvent:
        """What was really used. What is left out is as it was reserved. More than was reserved is counted too."""
        most = reservation.most
        actual = Amounts(
            tokens=most.tokens if usage is None else usage.input + usage.output,
            cost_micro=most.cost_micro if cost is None else to_micro(cost),
            requests=most.requests if requests is None else requests,
            tool_calls=most.tool_calls if tool_calls is None else tool_calls,
            turns=most.turns if turns is None else turns,
            runtime_ms=most.runtime_ms if runtime_seconds is None else to_ms(runtime_seconds),
        )
        return await self._end(reservation, _settled(self.now(), actual, usage))

    async def release(self, reservation: Reservation) -> LedgerEvent:
        """Nothing was used."""
        return await self._end(reservation, Used(EventState.RELEASED, self.now(), Amounts()))

    async def record_model_usage(
        self,
        ctx: Identity,
        usage: Usage,
        *,
        cost: Decimal | float | None = None,
        role: str | None = None,
        event_id: str | None = None,
    ) -> LedgerEvent:
        """Count a model call that was made without a reservation; `cost` is None where no price is known.

        The same `event_id` again, within the same second, is counted once.
        """
        actual = Amounts(
            tokens=usage.input + usage.output, cost_micro=0 if cost is None else to_micro(cost), requests=1, turns=1
        )
        entry = self._entry(ctx, event_id or self._ids.new("evt"), MODEL, actual, role=role, priced=cost is not None)
        return await self._record(entry, _settled(entry.at, actual, usage))

    async def record_tool_call(
        self, ctx: Identity, tool: str, *, runtime_seconds: float = 0, event_id: str | None = None
    ) -> LedgerEvent:
        """Count a tool call that was made without a reservation."""
        actual = Amounts(tool_calls=1, runtime_ms=to_ms(runtime_seconds))
        entry = self._entry(ctx, event_id or self._ids.new("evt"), TOOL, actual, detail=tool)
        return await self._record(entry, _settled(entry.at, actual, None))

    async def usage(self, scope_id: str, which: EventFilter | None = None) -> LedgerUsage:
        """What the scope, or a part of it, has used."""
        check_scope_id(scope_id)
        return await self._read(in_scope(scope_id, lambda: finds.usage(scope_id, which or EventFilter())))

    async def list_events(
        self, scope_id: str, which: EventFilter | None = None, *, after: EventCursor | None = None, limit: int = 100
    ) -> EventPage:
        """A page of the scope's events, the oldest first; `after` is the page before's `next`."""
        check_scope_id(scope_id)
        return await self._read(
            in_scope(scope_id, lambda: finds.events(scope_id, which or EventFilter(), after, limit))
        )

    async def export_csv(self, scope_id: str, which: EventFilter | None = None) -> str:
        """All events, one line each."""
        return as_csv([event async for event in self._all(scope_id, which)])

    async def export_json(self, scope_id: str, which: EventFilter | None = None) -> str:
        """All events, as one array."""
        return as_json([event async for event in self._all(scope_id, which)])

    async def expire(self, *, limit: int = 1000) -> list[LedgerEvent]:
        """Count up to `limit` reservations of all scopes whose lease has run out as unknown; those, oldest first.

        The budgets of runs that nobody renews any more go as well.
        """
        now = self.now()
        return await self._run(everywhere(lambda: _expired(now, limit)))

    async def _all(self, scope_id: str, which: EventFilter | None) -> AsyncIterator[LedgerEvent]:
        page = await self.list_events(scope_id, which, limit=_EXPORTED_AT_ONCE)
        while True:
            for event in page.events:
                yield event
            if page.next is None:
                return
            page = await self.list_events(scope_id, which, after=page.next, limit=_EXPORTED_AT_ONCE)

    def _entry(
        self,
        ctx: Identity,
        event_id: str,
        kind: str,
        most: Amounts,
        *,
        role: str | None = None,
        priced: bool = True,
        detail: str | None = None,
    ) -> Entry:
        now, run = self.now(), _run_of(ctx)
        return Entry(
            scope_id=ctx.scope_id,
            event_id=event_id,
            type=kind,
            at=now,
            most=most,
            principal_id=ctx.principal_id,
            role=role,
            run_id=run and run.run_id,
            job_id=run and run.job_id,
            lease_until=now + self._lease_s,
            priced=priced,
            detail=detail,
        )

    async def _end(self, reservation: Reservation, used: Used) -> LedgerEvent:
        scope_id, event_id = reservation.scope_id, reservation.reservation_id
        return await self._run(Joint(_ended, (scope_id, event_id, used), scope_id))

    async def _record(self, entry: Entry, used: Used) -> LedgerEvent:
        return await self._run(in_scope(entry.scope_id, lambda: _recorded(entry, used)))

    async def _run(self, op_factory: OpFactory[T]) -> T:
        if self._unset:
            await self._set_budgets()
        return await until_known(lambda: self._writer.run(op_factory), self._clock)

    async def _read(self, op_factory: OpFactory[T]) -> T:
        await self._set_budgets()
        return await self._writer.read(op_factory)

    async def _set_budgets(self) -> None:
        for setting in tuple(self._unset):
            await setting.store()


class _Setting:
    """A budget that is to be stored: now, if it is awaited, or else before its ledger's next operation."""

    def __init__(self, budget: Budget, store: Callable[[Budget], Awaitable[None]], unset: list[_Setting]) -> None:
        self._budget = budget
        self._store = store
        self._unset = unset
        self._storing = asyncio.Lock()
        unset.append(self)

    def __await__(self) -> Generator[Any, None, None]:
        return self.store().__await__()

    async def store(self) -> None:
        async with self._storing:
            if self in self._unset:
                await self._store(self._budget)
                self._unset.remove(self)


def _expired(now: float, limit: int) -> Op[list[LedgerEvent]]:
    events = yield from ops.expire(now, limit)
    yield from runs.expire(now, limit)
    return events


def _ended(ended: Sequence[ops.Ended]) -> Op[list[LedgerEvent]]:
    events: list[LedgerEvent] = []
    for (_, event_id, _), row in zip(ended, (yield from ops.end_all(ended)), strict=True):
        if row is None:
            raise StoreConflictError(f"Event {event_id!a} is not in the ledger, so it cannot end.")
        events.append(event_of(row))
    return events


def _recorded(entry: Entry, used: Used) -> Op[LedgerEvent]:
    return event_of((yield from ops.record(entry, used)))


def _settled(now: float, actual: Amounts, usage: Usage | None) -> Used:
    told = usage or Usage()
    return Used(EventState.SETTLED, now, actual, told.input, told.output, told.estimated)


def _account(ctx: Identity, role: str | None) -> Account:
    run = _run_of(ctx)
    return Account(ctx.scope_id, ctx.principal_id, role or "", run.run_id if run else "")


def _run_of(ctx: Identity) -> ExecutionContext | None:
    return ctx if isinstance(ctx, ExecutionContext) else None


def _amounts(
    tokens: int, cost: Decimal | float, requests: int, tool_calls: int, turns: int, runtime_seconds: float
) -> Amounts:
    return Amounts(tokens, to_micro(cost), requests, tool_calls, turns, to_ms(runtime_seconds))
