"""What those who look at a ledger see, on every database: sums, attempts and budgets of one scope, page by page."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from agent_runtime import Budget, BudgetSpec, EventFilter, ExecutionContext
from agent_runtime.ledger.records import EventState
from agent_runtime.ledger.run_ledger import RunLedger
from agent_runtime.ledger.standing import BudgetFilter, LimitStanding
from agent_runtime.ledger.usage import GroupBy, GroupCursor, UsageSums
from agent_runtime.ledger.view import LedgerView
from runtime_core.clock import ManualClock
from runtime_core.stores import Database, open_database
from runtime_core.stores.sql import Op, Sql
from support.spending import Spending, some_of_everything
from support.stores import fresh_store_url

ALL = EventFilter()
WIDTH = 2.3


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 1, 31, 12, tzinfo=UTC))


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    async with open_database(await fresh_store_url(request.param, request, tmp_path)) as database:
        yield database


@pytest.fixture
async def view(database: Database, clock: ManualClock) -> LedgerView:
    """Of a store with spending in two scopes under the same ids, twice as much of it in the other one."""
    for scope_id, times in (("tenant-2", 2), ("default", 1)):
        spending = Spending(database, clock, scope_id=scope_id)
        for _ in range(times):
            await some_of_everything(spending)
    return LedgerView(database, clock=clock)


async def test_what_is_known_open_and_unknown_is_never_one_number(view: LedgerView) -> None:
    page = await view.usage(scope_id="default", which=ALL, by=GroupBy.ROLE)
    assert page.total == UsageSums(
        events=6,
        settled=3,
        released=1,
        open=1,
        unknown=1,
        lapsed=1,
        estimated=1,
        input_tokens=300,
        output_tokens=150,
        tokens=450,
        cost_micro=3100,
        open_tokens=200,
        open_cost_micro=2000,
        unknown_tokens=200,
        unknown_cost_micro=2000,
        requests=5,
    )
    judge = UsageSums(events=1, settled=1, input_tokens=100, output_tokens=50, tokens=150, cost_micro=100, requests=1)
    assert [(group.part, group.sums) for group in page.groups] == [
        ("llm.writer", page.total - judge),
        ("llm.judge", judge),
    ]


@pytest.mark.parametrize(
    ("by", "parts"),
    [
        (GroupBy.PRINCIPAL, ["ann", "bob"]),
        (GroupBy.RUN, ["run-2", "run-3", "run-1"]),
        (GroupBy.MODEL, ["sim/sim-large", "sim/sim-small"]),
        (GroupBy.DAY, ["2026-01-31"]),
        (GroupBy.HOUR, ["2026-01-31"]),
    ],
)
async def test_groups_come_in_pages_that_add_up_to_the_total(view: LedgerView, by: GroupBy, parts: list[str]) -> None:
    seen: list[str] = []
    added = UsageSums()
    after: GroupCursor | None = None
    while True:
        page = await view.usage(scope_id="default", which=ALL, by=by, after=after, limit=1)
        [group] = page.groups
        seen.append(_day(group.part) if isinstance(group.part, int) else group.part)
        added += group.sums
        if (after := page.next) is None:
            break
    assert (seen, added) == (parts, page.total)


async def test_days_and_hours_are_utc_and_the_latest_comes_first(database: Database, clock: ManualClock) -> None:
    spending = Spending(database, clock)
    clock.advance(11 * 3600)
    for _ in range(3):
        await spending.attempt()
        clock.advance(3000)
    view = LedgerView(database, clock=clock)
    for by, width in ((GroupBy.DAY, 86_400), (GroupBy.HOUR, 3600)):
        page = await view.usage(scope_id="default", which=ALL, by=by, limit=1)
        [latest] = page.groups
        rest = await view.usage(scope_id="default", which=ALL, by=by, after=page.next)
        begins = [group.part for group in (latest, *rest.groups)]
        assert begins == sorted({int(begin) for begin in begins}, reverse=True) and len(begins) > 1
        assert all(int(begin) % width == 0 for begin in begins)


async def test_a_filter_and_a_window_leave_the_rest_out(view: LedgerView) -> None:
    every = (await view.attempts(scope_id="default", which=ALL)).attempts
    for which, events in (
        (EventFilter(role="llm.judge"), 1),
        (EventFilter(principal_id="bob"), 2),
        (EventFilter(run_id="run-2"), 2),
        (EventFilter(state=EventState.UNKNOWN), 1),
        (EventFilter(since=every[3].started_at, until=every[1].started_at), 2),
    ):
        page = await view.usage(scope_id="default", which=which, by=GroupBy.MODEL)
        assert page.total.events == sum(group.sums.events for group in page.groups) == events, which
        assert len((await view.attempts(scope_id="default", which=which)).attempts) == events, which


async def test_an_attempt_shows_the_calls_row_and_what_the_ledger_counts(view: LedgerView) -> None:
    page = await view.attempts(scope_id="default", which=ALL, limit=5)
    rest = await view.attempts(scope_id="default", which=ALL, after=page.next)
    lines = [*page.attempts, *rest.attempts]
    assert [line.attempt_id for line in lines] == ["att-6", "att-5", "att-4", "att-3", "att-2", "att-1"]
    assert (len(page.attempts), rest.next) == (5, None)
    open_, lapsed, released, _, estimated, first = lines
    assert (first.status, first.duration_s, first.provider, first.model, first.node, first.run_id) == (
        ("settled", 2.0, "sim", "sim-large", "draft", "run-1")
    )
    assert (first.input_tokens, first.output_tokens, first.cost_micro) == (100, 50, 1500)
    assert (first.reserved_tokens, first.reserved_cost_micro, first.counted_tokens, first.counted_cost_micro) == (
        (200, 2000, 150, 1500)
    )
    assert estimated.estimated and not first.estimated
    assert (released.error, released.counted_tokens, released.cost_micro) == ("not_sent", 0, None)
    assert (lapsed.status, lapsed.lapsed, lapsed.counted_tokens, lapsed.error) == ("unknown", True, 200, "lease_lapsed")
    assert (open_.ended_at, open_.duration_s, open_.counted_cost_micro) == (None, None, 2000)


async def test_a_budget_shows_its_window_and_what_is_left(database: Database, clock: ManualClock) -> None:
    spending = Spending(database, clock)
    await spending.ledger.set_budget(Budget(max_tokens_daily=1000, max_tokens_per_request=500))
    await spending.ledger.set_budget(Budget(role="llm.writer", max_cost_total=Decimal("0.001")))
    await spending.ledger.set_budget(Budget(scope_id="tenant-2", max_tokens_total=1))
    await spending.ledger.set_budget(Budget(run_id="run-9", parent_run_id="run-8", max_requests_total=3))
    await spending.attempt(role="llm.judge")
    await spending.attempt("reserved", role="llm.judge", cost="0.0001")
    view = LedgerView(database, clock=clock)
    page = await view.budgets(scope_id="default", which=BudgetFilter(), limit=1)
    [own] = page.budgets
    per_request, daily = sorted(own.limits, key=lambda limit: limit.window != "per_request")
    assert (per_request.most, per_request.spent, per_request.left, per_request.resets_at) == (500, None, None, None)
    midnight = datetime(2026, 2, 1, tzinfo=UTC)
    assert daily == LimitStanding.model_validate(
        {"limit": "max_tokens_daily", "measure": "tokens", "window": "daily", "most": 1000}
        | {"spent": 150, "reserved": 200, "left": 650, "resets_at": midnight}
    )
    [role] = (await view.budgets(scope_id="default", which=BudgetFilter(), after=page.next)).budgets
    assert (role.role, role.limits[0].left, role.limits[0].measure) == ("llm.writer", 1000, "cost_micro")
    clock.advance(86_400)
    assert (await view.budgets(scope_id="default", which=BudgetFilter())).budgets[0].limits[0].spent in (0, None)
    with_runs = (await view.budgets(scope_id="default", which=BudgetFilter(runs=True))).budgets
    assert [each.run_id for each in with_runs] == [None, "run-9", None]
    [run] = (await view.budgets(scope_id="default", which=BudgetFilter(run_id="run-9"))).budgets
    assert (run.parent_run_id, run.limits[0].most) == ("run-8", 3)
    assert (await view.budgets(scope_id="nobody", which=BudgetFilter(runs=True))).budgets == []


async def test_what_a_run_holds_is_neither_spent_nor_an_attempt(database: Database, clock: ManualClock) -> None:
    view = LedgerView(database, clock=clock)
    run = ExecutionContext(scope_id="default", principal_id="ann", run_id="run-7")
    async with RunLedger(database, clock=clock) as runs:
        async with runs.budgeted(run, BudgetSpec(max_tokens=300), holds=True):
            held = (await view.usage(scope_id="default", which=ALL, by=GroupBy.PRINCIPAL)).total
            assert held == UsageSums(holds=1, held_tokens=300)
        assert (await view.usage(scope_id="default", which=ALL, by=GroupBy.ROLE)).total == UsageSums()


async def test_two_tenants_with_the_same_ids_never_see_each_other(view: LedgerView) -> None:
    for scope_id, times in (("default", 1), ("tenant-2", 2), ("nobody", 0)):
        for by in GroupBy:
            page = await view.usage(scope_id=scope_id, which=ALL, by=by)
            assert page.total.events == sum(group.sums.events for group in page.groups) == 6 * times
        attempts = (await view.attempts(scope_id=scope_id, which=ALL)).attempts
        assert len(attempts) == 6 * times
        foreign = await view.attempts(scope_id=scope_id, which=EventFilter(run_id="run-1", principal_id="ann"))
        assert len(foreign.attempts) == 2 * times


def _day(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d")


def _many(first: int, count: int) -> Op[None]:
    yield Sql(
        "WITH RECURSIVE n (i) AS (SELECT CAST(? AS BIGINT) UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        " INSERT INTO runtime_ledger (scope_id, event_id, type, state, timestamp, at_second, ended_at, principal_id,"
        " role, run_id, input_tokens, output_tokens, total_tokens, cost_micro, requests)"
        " SELECT 'default', 'e' || i, 'model', 'settled', 1000 + i, 1000 + i, 1001 + i, 'p' || i % 50, 'r' || i % 7,"
        " 'run' || i / 10, 10, 5, 15, 7, 1 FROM n",
        (first, first + count - 1),
    )


@pytest.mark.timeout(900)
@pytest.mark.skipif(os.environ.get("AGENTFLOW_LEDGER_VIEW") != "full", reason="AGENTFLOW_LEDGER_VIEW=full")
async def test_twice_the_events_take_about_twice_the_time_and_a_page_stays_a_page(tmp_path: Path) -> None:
    async with (
        open_database(f"sqlite:///{tmp_path}/once.db") as once,
        open_database(f"sqlite:///{tmp_path}/twice.db") as twice,
    ):
        views = LedgerView(once), LedgerView(twice)
        for view, database, events in zip(views, (once, twice), (100_000, 200_000), strict=True):
            await view.prepare()
            await database.run(lambda events=events: _many(1, events))

        async def cost(view: LedgerView, by: GroupBy) -> float:
            began = time.process_time()
            page = await view.usage(scope_id="default", which=ALL, by=by, limit=100)
            assert len(page.groups) <= 100
            return time.process_time() - began

        for by in GroupBy:
            pairs = [(await cost(views[0], by), await cost(views[1], by)) for _ in range(7)]
            ratio = statistics.median(more / less for less, more in pairs)
            print(f"{by}: {min(pairs)[0] * 1000:.0f} ms of CPU for 100,000 events, {ratio:.2f} x for twice as many")
            assert ratio <= WIDTH, by
