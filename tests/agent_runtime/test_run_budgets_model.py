"""Runs that are held as a whole, beside a naive account of them: no budget is overrun, nothing is counted twice."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from agent_runtime import Budget, EventFilter, InMemoryLedgerWriter, Ledger
from agent_runtime.ledger import holds, runs
from agent_runtime.ledger.amounts import Amounts
from agent_runtime.ledger.records import MODEL, Entry, EventState, Used
from agent_runtime.ledger.runs import Beginning
from agent_runtime.ledger.windows import Window, begins_at
from runtime_core.clock import ManualClock
from runtime_core.context import BudgetSpec
from runtime_core.stores.sql import Op, Sql

T = TypeVar("T")
SCOPE = "a"
LEASE_S = 1000
PRINCIPALS = st.sampled_from(["ann", "bob"])


@dataclass
class Run:
    name: str
    principal: str
    most: int
    at: float
    lease_until: float
    parent: Run | None = None
    above: frozenset[str] = frozenset()
    held: int = 0
    is_open: bool = True

    def chain(self) -> Iterator[Run]:
        """Itself and the open runs above it; the chain ends where one is over."""
        run: Run | None = self
        while run is not None and run.is_open:
            yield run
            run = run.parent


@dataclass
class Call:
    number: int
    principal: str
    at: float
    tokens: int
    run: Run | None
    runs: set[str] = field(default_factory=set)


class RunMachine(RuleBasedStateMachine):
    opened = Bundle("opened")
    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._clock = ManualClock(datetime(2026, 2, 28, 23, 50, tzinfo=UTC))
        self._writer = InMemoryLedgerWriter()
        self._ledger = Ledger(self._writer, clock=self._clock)
        self._runs: list[Run] = []
        self._calls: list[Call] = []
        self._limits: dict[tuple[str, Window], int] = {}
        self._overshot = False

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    @initialize(total=st.integers(50, 300), daily=st.integers(50, 200), bobs=st.integers(20, 150))
    def limit(self, total: int, daily: int, bobs: int) -> None:
        async def store() -> None:
            await self._ledger.set_budget(Budget(scope_id=SCOPE, max_tokens_total=total, max_tokens_daily=daily))
            await self._ledger.set_budget(Budget(scope_id=SCOPE, principal_id="bob", max_tokens_total=bobs))
            # A limit of one request does not bound a run.
            await self._ledger.set_budget(Budget(scope_id=SCOPE, principal_id="ann", max_tokens_per_request=60))

        self._await(store())
        self._limits = {("", Window.TOTAL): total, ("", Window.DAY): daily, ("bob", Window.TOTAL): bobs}

    @rule(target=opened, principal=PRINCIPALS, most=st.integers(1, 120), holds=st.booleans(), within=st.none() | opened)
    def open(self, principal: str, most: int, holds: bool, within: Run | None) -> Any:
        now = self._ledger.now()
        if within is not None:
            principal = within.principal
        run = Run(f"r{len(self._runs)}", principal, most, now, now + LEASE_S, within)
        budget = Budget.of_run(
            SCOPE, run.name, BudgetSpec(max_tokens=most), parent_run_id=None if within is None else within.name
        )
        refusal = self._await(
            self._writer.run(lambda: runs.begin(Beginning(budget, principal, now, run.lease_until, holds)))
        )
        allowed = within is None or within.is_open
        if allowed and holds:
            allowed = self._drawn(run.parent, most, lambda: self._fits(principal, now, most, run.parent))
        assert (refusal is None) == allowed
        if not allowed:
            return multiple()
        run.held = most if holds else 0
        run.above = frozenset() if within is None else frozenset(each.name for each in within.chain())
        self._runs.append(run)
        return run

    @rule(target=calls, tokens=st.integers(1, 60), run=st.none() | opened, principal=PRINCIPALS)
    def reserve(self, tokens: int, run: Run | None, principal: str) -> Any:
        now, principal = self._ledger.now(), run.principal if run is not None else principal
        number = len(self._calls)
        entry = Entry(
            SCOPE,
            f"call-{number}",
            MODEL,
            now,
            Amounts(tokens=tokens, requests=1),
            principal,
            run_id=None if run is None else run.name,
            budgeted=run is not None,
        )
        covered = run is not None and run.is_open and run.held >= tokens and run.parent is None
        refusal = self._await(self._writer.run(lambda: holds.reserve(entry)))
        allowed = run is None or run.is_open
        if allowed:
            allowed = self._drawn(run, tokens, lambda: self._fits(principal, now, tokens, run))
        assert (refusal is None) == allowed
        if covered and begins_at(Window.DAY, int(run.at)) == begins_at(Window.DAY, int(now)) and not self._overshot:
            assert allowed, "what was held was refused"
        if not allowed:
            return multiple()
        call = Call(number, principal, now, tokens, run, set() if run is None else {each.name for each in run.chain()})
        self._calls.append(call)
        # The same call again changes nothing.
        assert self._await(self._writer.run(lambda: holds.reserve(entry))) is None
        return call

    @rule(call=consumes(calls), share=st.integers(0, 4), over=st.sampled_from([0, 0, 0, 7]))
    def settle(self, call: Call, share: int, over: int) -> None:
        tokens = call.tokens * share // 4 + over * (share == 4)
        used = Used(EventState.SETTLED, self._ledger.now(), Amounts(tokens=tokens, requests=1))
        name = None if call.run is None else call.run.name
        for _ in range(2):
            self._await(self._writer.run(lambda: holds.end(SCOPE, f"call-{call.number}", used, run_id=name)))
        self._overshot |= tokens > call.tokens
        freed, call.tokens = call.tokens - tokens, tokens
        self._give_back(call.run, freed)

    @rule(run=consumes(opened))
    def close(self, run: Run) -> None:
        self._await(self._writer.run(lambda: runs.finish(SCOPE, run.name, self._ledger.now())))
        self._closed(run)

    @rule(run=opened)
    def renew(self, run: Run) -> None:
        until = self._ledger.now() + LEASE_S
        assert self._await(self._writer.run(lambda: runs.renew(SCOPE, run.name, until))) == run.is_open
        run.lease_until = max(run.lease_until, until)

    @rule(seconds=st.sampled_from([1, 600, 900]))
    def let_time_pass(self, seconds: int) -> None:
        self._clock.advance(seconds)

    @rule()
    def expire(self) -> None:
        self._await(self._ledger.expire())
        due = [run for run in self._runs if run.is_open and run.lease_until <= self._ledger.now()]
        for run in sorted(due, key=lambda each: each.lease_until):
            self._closed(run)

    @invariant()
    def the_holds_and_counters_are_the_same(self) -> None:
        held = self._await(self._writer.read(_held))
        assert held == {f"hold {run.name}": run.held for run in self._runs if run.is_open and run.held}
        counted = self._await(self._writer.read(_counted))
        for (principal, run), tokens in counted.items():
            if run:
                assert tokens == self._of_run(next(each for each in self._runs if each.name == run))
            else:
                assert tokens == self._taken(principal, 0)
        assert {run for _, run in counted if run} == {run.name for run in self._runs if run.is_open}

    @invariant()
    def nobody_overruns(self) -> None:
        if self._overshot:
            return
        for (principal, window), most in self._limits.items():
            assert self._taken(principal, begins_at(window, int(self._ledger.now()))) <= most
        for run in self._runs:
            if run.is_open:
                assert self._of_run(run) + run.held <= run.most

    def teardown(self) -> None:
        for run in self._runs:
            self._await(self._writer.run(lambda run=run: runs.finish(SCOPE, run.name, self._ledger.now())))
        assert self._await(self._writer.read(_held)) == {}
        usage = self._await(self._ledger.usage(SCOPE, EventFilter(type=MODEL)))
        assert usage.total_tokens == self._await(self._ledger.usage(SCOPE)).total_tokens
        self._await(self._writer.close())
        self._runner.close()

    def _taken(self, principal: str, begin: int) -> int:
        """What those calls and holds add up to that began no earlier."""
        calls = sum(each.tokens for each in self._calls if principal in ("", each.principal) and int(each.at) >= begin)
        held = sum(
            run.held for run in self._runs if run.is_open and principal in ("", run.principal) and int(run.at) >= begin
        )
        return calls + held

    def _of_run(self, run: Run) -> int:
        calls = sum(each.tokens for each in self._calls if run.name in each.runs)
        return calls + sum(each.held for each in self._runs if each.is_open and run.name in each.above)

    def _fits(self, principal: str, now: float, tokens: int, run: Run | None) -> bool:
        if run is not None and any(self._of_run(each) + tokens > each.most for each in run.chain()):
            return False
        return all(
            self._taken(whose, begins_at(window, int(now))) + tokens <= most
            for (whose, window), most in self._limits.items()
            if whose in ("", principal)
        )

    def _drawn(self, run: Run | None, tokens: int, fits: Any) -> bool:
        before = [(each, each.held) for each in run.chain()] if run is not None else []
        for each, _ in before:
            draw = min(each.held, tokens)
            each.held, tokens = each.held - draw, tokens - draw
        if fits():
            return True
        for each, held in before:
            each.held = held
        return False

    def _give_back(self, run: Run | None, freed: int) -> None:
        for each in run.chain() if run is not None else ():
            if self._has_hold(each):
                room = max(0, each.most - self._of_run(each))
                held = min(max(each.held + freed, each.held), room)
                freed -= max(0, held - each.held)
                each.held = held

    def _has_hold(self, run: Run) -> bool:
        return run.name in self._holding

    @property
    def _holding(self) -> set[str]:
        return self._await(self._writer.read(_holding))

    def _closed(self, run: Run) -> None:
        if not run.is_open:
            return
        held, run.held, run.is_open = run.held, 0, False
        if run.parent is not None and held:
            self._give_back(run.parent, held)


def _held() -> Op[dict[str, int]]:
    rows = yield Sql("SELECT event_id, reserved_tokens FROM runtime_ledger WHERE type = 'hold' AND state = 'reserved'")
    return {name: tokens for name, tokens in rows if tokens}


def _holding() -> Op[set[str]]:
    rows = yield Sql("SELECT run_id FROM ledger_runs WHERE holds = 1")
    return {name for (name,) in rows}


def _counted() -> Op[dict[tuple[str, str], int]]:
    rows = yield Sql(
        "SELECT principal_id, run_id, spent_tokens + reserved_tokens FROM ledger_counters"
        " WHERE period = 'total' AND role = '' AND principal_id <> 'ann'"
    )
    return {(principal, run): tokens for principal, run, tokens in rows}


TestRunMachine = RunMachine.TestCase
RunMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
