"""The ledger beside a naive one that keeps a list and adds it up: every short history of both is the same."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from agent_runtime import Budget, BudgetExceededError, InMemoryLedgerWriter, Ledger, Reservation
from agent_runtime.ledger.windows import Window, begins_at
from runtime_core.call_log.records import Usage
from runtime_core.clock import ManualClock
from runtime_core.context import ExecutionContext
from support.ledgers import held

T = TypeVar("T")
LEASE_S = 60
SCOPES = st.sampled_from(["a", "b"])
PRINCIPALS = st.sampled_from(["ann", "bob"])
RUNS = st.sampled_from(["parent", "child", "alone"])
TOKENS = st.integers(0, 40)
WINDOWS = st.sampled_from([Window.MINUTE, Window.DAY, Window.MONTH, Window.TOTAL])
ABOVE = {"child": ("child", "parent")}


@dataclass
class Used:
    scope: str
    principal: str
    run: str
    at: float
    lease_until: float
    tokens: int
    most: int
    state: str = "reserved"


@dataclass(frozen=True)
class Rule:
    scope: str
    principal: str | None
    run: str | None
    window: Window
    most: int

    def counts(self, used: Used) -> bool:
        runs = ABOVE.get(used.run, (used.run,))
        return (
            used.scope == self.scope
            and self.principal in (None, used.principal)
            and (self.run is None or self.run in runs)
        )


class LedgerMachine(RuleBasedStateMachine):
    reservations = Bundle("reservations")

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._clock = ManualClock(datetime(2026, 2, 28, 23, 57, tzinfo=UTC))
        self._writer = InMemoryLedgerWriter()
        self._ledger = Ledger(self._writer, clock=self._clock, lease_s=LEASE_S)
        self._used: list[Used] = []
        self._rules: dict[tuple[str, str | None, str | None], Rule] = {}

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    @initialize()
    def link_the_runs(self) -> None:
        for scope in ("a", "b"):
            for run in ("parent", "child"):
                parent = "parent" if run == "child" else None
                self._set(Budget(scope_id=scope, run_id=run, parent_run_id=parent))

    @rule(scope=SCOPES, principal=st.none() | PRINCIPALS, window=WINDOWS, most=st.integers(0, 100))
    def limit(self, scope: str, principal: str | None, window: Window, most: int) -> None:
        self._limit(Rule(scope, principal, None, window, most))

    @rule(scope=SCOPES, run=RUNS, most=st.integers(0, 100))
    def limit_a_run(self, scope: str, run: str, most: int) -> None:
        self._limit(Rule(scope, None, run, Window.TOTAL, most))

    @rule(scope=SCOPES, principal=st.none() | PRINCIPALS)
    def lift(self, scope: str, principal: str | None) -> None:
        there = self._rules.pop((scope, principal, None), None) is not None
        assert self._await(self._ledger.remove_budget(Budget(scope_id=scope, principal_id=principal))) is there
        listed = self._await(self._ledger.budgets(scope))
        assert principal not in {budget.principal_id for budget in listed if budget.run_id is None}

    @rule(target=reservations, scope=SCOPES, principal=PRINCIPALS, run=RUNS, tokens=TOKENS)
    def reserve(self, scope: str, principal: str, run: str, tokens: int) -> Any:
        now = self._ledger.now()
        wanted = Used(scope, principal, run, now, now + LEASE_S, tokens, tokens)
        fits = tokens == 0 or all(self._taken(each) + tokens <= each.most for each in self._applying(wanted))
        ctx = ExecutionContext(scope_id=scope, principal_id=principal, run_id=run)
        try:
            reservation = self._await(self._ledger.reserve(ctx, tokens=tokens))
        except BudgetExceededError:
            assert not fits, "a false refusal"
            return multiple()
        assert fits, "an overrun"
        self._used.append(wanted)
        return reservation, wanted

    @rule(held=consumes(reservations), share=st.integers(0, 4), over=st.integers(0, 5))
    def settle(self, held: tuple[Reservation, Used], share: int, over: int) -> None:
        reservation, used = held
        tokens = used.most * share // 4 + (over if share == 4 else 0)
        self._await(self._ledger.settle(reservation, Usage(input=tokens)))
        used.tokens, used.state = tokens, "settled"

    @rule(held=consumes(reservations))
    def release(self, held: tuple[Reservation, Used]) -> None:
        reservation, used = held
        self._await(self._ledger.release(reservation))
        used.tokens, used.state = 0, "released"

    @rule(scope=SCOPES, principal=PRINCIPALS, run=RUNS, tokens=TOKENS)
    def record(self, scope: str, principal: str, run: str, tokens: int) -> None:
        ctx = ExecutionContext(scope_id=scope, principal_id=principal, run_id=run)
        self._await(self._ledger.record_model_usage(ctx, Usage(output=tokens)))
        self._used.append(Used(scope, principal, run, self._ledger.now(), 0, tokens, tokens, "settled"))

    @rule(seconds=st.sampled_from([1, 29, 60, 3600]))
    def let_time_pass(self, seconds: int) -> None:
        self._clock.advance(seconds)

    @rule()
    def expire(self) -> None:
        lapsed = self._await(self._ledger.expire())
        due = [each for each in self._used if each.state == "reserved" and each.lease_until <= self._ledger.now()]
        assert len(lapsed) == len(due)
        for each in due:
            each.state = "unknown"

    @invariant()
    def the_sums_are_the_same(self) -> None:
        for scope in ("a", "b"):
            usage = self._await(self._ledger.usage(scope))
            own = [each for each in self._used if each.scope == scope]
            assert usage.total_tokens == sum(each.tokens for each in own)
            assert usage.open == sum(each.state == "reserved" for each in own)

    def teardown(self) -> None:
        self._clock.advance(LEASE_S)
        self._await(self._ledger.expire())
        for scope in ("a", "b"):
            assert self._await(held(self._writer.database, scope)) == (0, 0, 0)
        self._await(self._writer.close())
        self._runner.close()

    def _limit(self, new: Rule) -> None:
        name = f"max_tokens_{new.window.value}"
        parent = "parent" if new.run == "child" else None
        document = {"scope_id": new.scope, "principal_id": new.principal, "run_id": new.run, "parent_run_id": parent}
        self._set(Budget.model_validate({**document, name: new.most}))
        self._rules[new.scope, new.principal, new.run] = new

    def _set(self, budget: Budget) -> None:
        async def store() -> None:
            await self._ledger.set_budget(budget)

        self._await(store())

    def _applying(self, wanted: Used) -> list[Rule]:
        return [each for each in self._rules.values() if each.counts(wanted)]

    def _taken(self, rule: Rule) -> int:
        begin = begins_at(rule.window, int(self._ledger.now()))
        return sum(each.tokens for each in self._used if rule.counts(each) and int(each.at) >= begin)


TestLedgerMachine = LedgerMachine.TestCase
LedgerMachine.TestCase.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
