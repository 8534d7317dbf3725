"""A ledger and a call log filled by hand: attempts that ended in every way there is."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from agent_runtime import Ledger
from agent_runtime.ledger.writers import SqlLedgerWriter
from runtime_core.call_log.log import CallLog
from runtime_core.call_log.records import Attempt, AttemptStatus, CallKind, Ending, Usage
from runtime_core.clock import ManualClock
from runtime_core.context import ExecutionContext
from runtime_core.stores import Database

LEASE_S = 60.0


class Spending:
    """Attempts of one scope, one a second. Each is in the call log and in the ledger, under the same id."""

    def __init__(self, database: Database, clock: ManualClock, *, scope_id: str = "default") -> None:
        self.ledger = Ledger(SqlLedgerWriter(database), clock=clock, lease_s=LEASE_S)
        self._log = CallLog(database, clock=clock)
        self._clock = clock
        self._scope_id = scope_id
        self._made = 0

    async def attempt(
        self,
        status: str = "settled",
        *,
        role: str = "llm.writer",
        model: str = "sim-large",
        principal: str = "ann",
        run: str = "run-1",
        tokens: tuple[int, int] = (100, 50),
        cost: str | None = "0.0015",
        error: str | None = None,
        estimated: bool = False,
    ) -> str:
        """One attempt that may take 200 tokens and 0.002 dollars, took two seconds and ended so; its id."""
        await self._log.prepare()
        self._clock.advance(1)
        self._made += 1
        attempt_id = f"att-{self._made}"
        now = self._log.now()
        attempt = Attempt(
            scope_id=self._scope_id,
            attempt_id=attempt_id,
            call_id=f"call-{self._made}",
            number=1,
            kind=CallKind.CHAT,
            role=role,
            provider="sim",
            model=model,
            request_hash="h",
            reserved_at=now,
            lease_until=now + LEASE_S,
            principal_id=principal,
            run_id=run,
            node="draft",
        )
        who = ExecutionContext(scope_id=self._scope_id, principal_id=principal, run_id=run)
        most = None if cost is None else Decimal("0.002")
        held = await self.ledger.reserve(who, tokens=200, cost=most, requests=1, role=role, reservation_id=attempt_id)
        await self._log.reserve(attempt)
        if status == "reserved":
            return attempt_id
        if status == "lapsed":
            self._clock.advance(LEASE_S + 1)
            await self._log.expire()
            await self.ledger.expire()
            return attempt_id
        self._clock.advance(2)
        usage = Usage(input=tokens[0], output=tokens[1], estimated=estimated)
        facts: dict[str, Any] = {"usage": usage, "cost_micro": None if cost is None else int(Decimal(cost) * 10**6)}
        ending = Ending(
            status=AttemptStatus(status),
            ended_at=self._log.now(),
            error=error,
            **(facts if status == "settled" else {}),
        )
        if status == "settled":
            await self.ledger.settle(held, usage, cost=None if cost is None else Decimal(cost))
        elif status == "released":
            await self.ledger.release(held)
        await self._log.end(attempt, ending)
        return attempt_id


async def some_of_everything(spending: Spending) -> None:
    """Six attempts of two people, two roles, two models and three runs, in five different ends."""
    await spending.attempt()
    await spending.attempt(estimated=True, run="run-2")
    await spending.attempt(role="llm.judge", model="sim-small", principal="bob", run="run-3", cost="0.0001")
    await spending.attempt("released", error="not_sent")
    await spending.attempt("lapsed", run="run-2")
    await spending.attempt("reserved", principal="bob", run="run-3")
