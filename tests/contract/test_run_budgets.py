"""What runs with budgets promise on every database, alone and behind injected faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import Budget, BudgetExceededError, BudgetSpec, EventFilter, Ledger, ToolLedger
from agent_runtime.ledger import holds, standing
from agent_runtime.ledger.amounts import Amounts
from agent_runtime.ledger.records import MODEL, Entry, EventState, Used
from agent_runtime.ledger.run_ledger import RUN_LEASE_S, RunLedger
from agent_runtime.ledger.writers import SqlLedgerWriter
from llm_client import CallStoreError
from runtime_core.clock import ManualClock
from runtime_core.context import ExecutionContext
from runtime_core.errors import StoreUnavailableError
from runtime_core.stores import Database, everywhere, in_scope
from runtime_core.stores.memory import MemoryDatabase
from runtime_core.stores.sql import Op, Sql
from support.ledgers import SCOPE, held, ledger_database, opened
from support.stores import fresh_store_url, persist

SPEC = BudgetSpec(max_tokens=40, max_cost=Decimal("0.5"))


def run_of(name: str, parent: str | None = None) -> ExecutionContext:
    return ExecutionContext(scope_id=SCOPE, principal_id="ann", run_id=name, parent=parent, budgets=SPEC)


def call_of(run: str, number: int, tokens: int, at: float) -> Entry:
    return Entry(SCOPE, f"call-{run}-{number}", MODEL, at, Amounts(tokens, tokens), "ann", run_id=run, budgeted=True)


class HurriedClock(ManualClock):
    """Whoever pauses before another try goes on at once."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> ManualClock:
    return HurriedClock(datetime(2026, 1, 31, 12, 0, tzinfo=UTC))


@pytest.fixture(params=["memory", "sqlite", "postgres", "faulty memory"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    *faulty, kind = request.param.split()
    database = ledger_database(await fresh_store_url(kind, request, tmp_path), fault_rate=0.2 if faulty else 0.0)
    yield database
    await database.close()


@pytest.fixture
async def ledger(database: Database, clock: ManualClock) -> AsyncIterator[Ledger]:
    async with opened(database, clock) as ledger:
        yield ledger


@pytest.fixture
async def runs(ledger: Ledger, database: Database, clock: ManualClock) -> AsyncIterator[RunLedger]:
    runs = RunLedger(database, clock=clock)
    yield runs
    await runs.aclose()


async def begun(stack: AsyncExitStack, runs: RunLedger, run: ExecutionContext, **options: Any) -> None:
    """Begun, however often the store fails."""
    for _ in range(100):
        try:
            await stack.enter_async_context(runs.budgeted(run, SPEC, within=run.parent, **options))
            return
        except StoreUnavailableError:
            continue
    raise AssertionError("the store never answered")


def left() -> Op[int]:
    total = 0
    for table in ("ledger_runs", "ledger_budgets", "ledger_counters"):
        [(number,)] = yield Sql(f"SELECT COUNT(*) FROM {table} WHERE run_id <> ''")
        total += number
    return total


async def test_of_many_runs_as_many_begin_as_fit_whole_and_all_is_given_back(
    runs: RunLedger, ledger: Ledger, database: Database, clock: ManualClock
) -> None:
    await ledger.set_budget(Budget(scope_id=SCOPE, max_tokens_total=170, max_tokens_per_request=30))
    began: list[int] = []

    async def begin(number: int) -> None:
        try:
            await begun(stack, runs, run_of(f"r{number}"), holds=True)
            began.append(number)
        except BudgetExceededError as exc:
            assert (exc.limit, exc.run_id) == ("max_tokens_total", None)

    async with AsyncExitStack() as stack:
        async with asyncio.TaskGroup() as group:
            for number in range(9):
                group.create_task(begin(number))
        assert len(began) == 4
        at = ledger.now()
        for number in began:
            entry = call_of(f"r{number}", 1, 25, at)
            assert (
                await persist(lambda entry=entry: database.run(in_scope(SCOPE, lambda: holds.reserve(entry)))) is None
            )
            used = Used(EventState.SETTLED, at, Amounts(10, 10))
            ending = lambda entry=entry, used=used: holds.end(SCOPE, entry.event_id, used, run_id=entry.run_id)  # noqa: E731
            await persist(lambda ending=ending: database.run(in_scope(SCOPE, ending)))
        usage = await ledger.usage(SCOPE)
        assert usage.total_tokens == 4 * 40, "what is held shrinks by what is used, and counts with it"
    clock.advance(RUN_LEASE_S + 1)
    await ledger.expire()  # the end of a run may have met a store that was not there
    assert await persist(lambda: database.read(everywhere(left))) == 0
    assert (await ledger.usage(SCOPE)).total_tokens == 40
    assert (await held(database))[:2] == (0, 0)


async def test_a_run_whose_process_died_leaves_nothing_and_may_use_nothing(
    runs: RunLedger, ledger: Ledger, database: Database, clock: ManualClock
) -> None:
    await ledger.set_budget(Budget(scope_id=SCOPE, max_tokens_total=100))
    stack = AsyncExitStack()
    await begun(stack, runs, run_of("gone"), holds=True)
    assert (await held(database))[0] > 0
    clock.advance(RUN_LEASE_S + 1)
    await ledger.expire()
    assert (await held(database))[:2] == (0, 0)
    assert await persist(lambda: database.read(everywhere(left))) == 0
    refusal = await persist(
        lambda: database.run(in_scope(SCOPE, lambda: holds.reserve(call_of("gone", 1, 1, ledger.now()))))
    )
    assert refusal is not None and refusal.reason == "run_over"
    assert "the replicas of this app do not share a run store" in str(refusal.error())
    async with AsyncExitStack() as inner:
        with pytest.raises(BudgetExceededError):
            await begun(inner, runs, run_of("child", parent="gone"))
    await stack.aclose()


async def test_a_raised_limit_holds_and_is_never_lowered(runs: RunLedger, ledger: Ledger, database: Database) -> None:
    async with AsyncExitStack() as stack:
        await begun(stack, runs, run_of("r"))
        wanted = call_of("r", 1, 60, ledger.now())
        refusal = await persist(lambda: database.run(in_scope(SCOPE, lambda: holds.reserve(wanted))))
        assert refusal is not None
        assert (refusal.allowed, refusal.missing, refusal.account.run_id) == (40.0, 20.0, "r")
        for most in (60, 50):
            raising = {"max_tokens_total": most, "max_cost_total": 1}
            assert await persist(lambda raising=raising: runs.raise_limits(SCOPE, "r", raising))
        assert await persist(lambda: database.run(in_scope(SCOPE, lambda: holds.reserve(wanted)))) is None
        assert not await persist(lambda: runs.raise_limits(SCOPE, "nobody", {"max_tokens_total": 1}))


async def test_a_run_that_another_process_takes_over_keeps_its_budget(
    runs: RunLedger, ledger: Ledger, database: Database, clock: ManualClock
) -> None:
    async with AsyncExitStack() as stack:
        await begun(stack, runs, run_of("moved"))
        clock.advance(RUN_LEASE_S - 10)
        await begun(stack, RunLedger(database, clock=clock), run_of("moved"))
        clock.advance(20)
        await ledger.expire()
        assert (
            await persist(
                lambda: database.run(in_scope(SCOPE, lambda: holds.reserve(call_of("moved", 1, 1, ledger.now()))))
            )
            is None
        )


async def test_a_budget_set_by_hand_leaves_a_running_child_below_its_parent(
    runs: RunLedger, ledger: Ledger, database: Database
) -> None:
    async with AsyncExitStack() as stack:
        await begun(stack, runs, run_of("top"))
        await begun(stack, runs, run_of("child", parent="top"))
        await ledger.set_budget(Budget(scope_id=SCOPE, run_id="child", max_tokens_total=100))
        refusal = await persist(
            lambda: database.run(in_scope(SCOPE, lambda: holds.reserve(call_of("child", 1, 60, ledger.now()))))
        )
        assert refusal is not None and refusal.account.run_id == "top"


async def test_a_removed_budget_is_not_raised(runs: RunLedger, ledger: Ledger) -> None:
    async with AsyncExitStack() as stack:
        await begun(stack, runs, run_of("r"))
        await ledger.remove_budget(Budget(scope_id=SCOPE, run_id="r"))
        assert not await persist(lambda: runs.raise_limits(SCOPE, "r", {"max_tokens_total": 60}))


async def test_a_budget_set_by_hand_for_a_run_leaves_nothing_when_it_is_removed(
    ledger: Ledger, database: Database
) -> None:
    budget = Budget(scope_id=SCOPE, run_id="by-hand", max_tokens_total=10)
    await ledger.set_budget(budget)
    assert await persist(lambda: database.read(everywhere(left))) == 2
    assert await ledger.remove_budget(budget)
    assert await persist(lambda: database.read(everywhere(left))) == 0


@pytest.mark.parametrize("lost", [True, False])
async def test_a_run_that_is_done_again_has_what_the_runs_below_it_left(
    runs: RunLedger, ledger: Ledger, database: Database, clock: ManualClock, lost: bool
) -> None:
    began = clock.now()

    async def used(run: str, number: int, tokens: int, *, ends: bool = True) -> None:
        entry, at = call_of(run, number, tokens, ledger.now()), ledger.now()
        assert await persist(lambda: database.run(in_scope(SCOPE, lambda: holds.reserve(entry)))) is None
        if ends:
            done = Used(EventState.SETTLED, at, Amounts(tokens, tokens))
            ended = in_scope(SCOPE, lambda: holds.end(SCOPE, entry.event_id, done, run_id=run))
            await persist(lambda: database.run(ended))

    async with AsyncExitStack() as stack:
        await begun(stack, runs, run_of("j%b"))
        await used("j%b", 1, 5)
        await begun(stack, runs, run_of("below", parent="j%b"))
        await used("below", 1, 10)
        await begun(stack, runs, run_of("deeper", parent="below"))
        await used("deeper", 1, 7)
        await used("deeper", 2, 3, ends=False)
        await begun(stack, runs, run_of("jab"))
        await begun(stack, runs, run_of("other", parent="jab"))
        await used("other", 1, 9)
        if lost:
            clock.advance(RUN_LEASE_S + 1)
            await ledger.expire()
    async with AsyncExitStack() as stack:
        await begun(stack, runs, run_of("j%b"), since=began)
        limits = await persist(lambda: database.read(in_scope(SCOPE, lambda: standing_of("j%b"))))
        [limit, *_] = [each for each in limits if each.measure == "tokens"]
        assert (limit.spent, limit.reserved, limit.left) == (22, 3, 15)
        late = Used(EventState.SETTLED, ledger.now(), Amounts(1, 1))
        ended = in_scope(SCOPE, lambda: holds.end(SCOPE, "call-deeper-2", late, run_id="deeper"))
        await persist(lambda: database.run(ended))
        call = call_of("j%b", 3, 18, ledger.now())
        refusal = await persist(lambda: database.run(in_scope(SCOPE, lambda: holds.reserve(call))))
        assert refusal is not None and refusal.limit == "max_tokens_total"
        await used("j%b", 4, 17)


def standing_of(run_id: str) -> Op[tuple[standing.LimitStanding, ...]]:
    which = standing.BudgetFilter(run_id=run_id)
    page = yield from standing.budgets(SCOPE, which, 0.0, None, 1)
    return page.budgets[0].limits


async def test_a_call_again_whose_run_has_ended_since_is_still_the_same_call(
    runs: RunLedger, ledger: Ledger, database: Database, clock: ManualClock
) -> None:
    async with AsyncExitStack() as stack:
        await begun(stack, runs, run_of("r"))
        call = call_of("r", 1, 5, ledger.now())
        assert await persist(lambda: database.run(in_scope(SCOPE, lambda: holds.reserve(call)))) is None
        clock.advance(RUN_LEASE_S + 1)
        await ledger.expire()
        assert await persist(lambda: database.run(in_scope(SCOPE, lambda: holds.reserve(call)))) is None
        other = call_of("r", 2, 5, ledger.now())
        refusal = await persist(lambda: database.run(in_scope(SCOPE, lambda: holds.reserve(other))))
        assert refusal is not None and refusal.reason == "run_over"


async def test_a_tool_call_is_counted_once_and_refused_beyond_the_limit(
    runs: RunLedger, ledger: Ledger, database: Database, clock: ManualClock
) -> None:
    spec, tools = BudgetSpec(max_tool_calls=2), ToolLedger(SqlLedgerWriter(database), clock=clock)
    run = run_of("tools")
    for _ in range(100):
        try:
            async with runs.budgeted(run, spec):
                made = 0
                while True:
                    try:
                        async with tools.call(run, "look", budgeted=True):
                            made += 1
                    except CallStoreError:
                        await tools.aclose()
                    except BudgetExceededError as exc:
                        assert exc.limit == "max_tool_calls_total"
                        break
                assert made == 2
                break
        except StoreUnavailableError:
            continue
    assert (await ledger.usage(SCOPE, EventFilter(type="tool"))).tool_calls == 2


async def test_the_budget_of_a_run_that_goes_on_is_renewed() -> None:
    async with MemoryDatabase() as database:
        mine, other = RunLedger(database, lease_s=0.3), RunLedger(database)
        async with mine.budgeted(run_of("long"), SPEC):
            first = (await database.read(lease))[0]
            async with asyncio.timeout(10):
                while (await database.read(lease))[0] < first + 0.3:  # the first lease alone would be over
                    await asyncio.sleep(0.02)
            async with other.budgeted(run_of("other"), SPEC):
                await other._renew()  # pyright: ignore[reportPrivateUsage] - its timer is not due for a while
            assert await database.read(lease)
        assert await database.read(everywhere(left)) == 0
        await mine.aclose()
        await other.aclose()


def lease() -> Op[list[float]]:
    rows = yield Sql("SELECT lease_until FROM ledger_runs")
    return [until for (until,) in rows]
