"""What the ledger promises on every database, alone and behind injected faults."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from agent_runtime import Budget, BudgetDecision, BudgetExceededError, BudgetSpec, EventFilter, Ledger
from agent_runtime.ledger.records import EventState
from runtime_core.call_log.records import Usage
from runtime_core.clock import ManualClock
from runtime_core.context import ExecutionContext
from runtime_core.errors import IdentityError, StoreConflictError
from runtime_core.stores import Database
from support.ledgers import BOB, SCOPE, WHO, held, ledger_database, opened, who
from support.stores import fresh_store_url


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 1, 31, 23, 58, 30, tzinfo=UTC))


@pytest.fixture(params=["memory", "sqlite", "postgres", "faulty memory", "faulty postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    *faulty, kind = request.param.split()
    url = await fresh_store_url(kind, request, tmp_path)
    database = ledger_database(url, fault_rate=0.2 if faulty else 0.0)
    yield database
    await database.close()


@pytest.fixture
async def ledger(database: Database, clock: ManualClock) -> AsyncIterator[Ledger]:
    async with opened(database, clock) as ledger:
        yield ledger


async def test_a_reservation_is_made_only_if_it_fits(ledger: Ledger, database: Database) -> None:
    await ledger.set_budget(Budget(scope_id=SCOPE, max_tokens_total=100))
    first = await ledger.reserve(WHO, tokens=60)
    with pytest.raises(BudgetExceededError) as refused:
        await ledger.reserve(WHO, tokens=41)
    error = refused.value
    assert (error.limit, error.window, error.reason) == ("max_tokens_total", "total", "budget_exceeded")
    assert (error.retry_after, error.status, error.scope_id) == (None, 402, SCOPE)
    second = await ledger.reserve(WHO, tokens=40)
    assert (await held(database))[0] == 100
    await ledger.settle(first, Usage(input=5, output=5))
    await ledger.release(second)
    assert (await held(database)) == (0, 0, 0)
    await ledger.reserve(WHO, tokens=90)


async def test_each_window_ends_by_itself_in_utc(ledger: Ledger, clock: ManualClock) -> None:
    windows = (("per_minute", 30), ("daily", 90), ("monthly", 90))
    for window, left in windows:
        who = ExecutionContext(scope_id=f"of {window}")
        await ledger.set_budget(Budget.model_validate({"scope_id": who.scope_id, f"max_requests_{window}": 1}))
        await ledger.record_model_usage(who, Usage())
        with pytest.raises(BudgetExceededError) as refused:
            await ledger.reserve(who, requests=1)
        assert (refused.value.window, refused.value.retry_after, refused.value.status) == (window, left, 429)
    clock.advance(30)
    await ledger.reserve(ExecutionContext(scope_id="of per_minute"), requests=1)
    clock.advance(59.5)
    for window in ("daily", "monthly"):
        with pytest.raises(BudgetExceededError):
            await ledger.reserve(ExecutionContext(scope_id=f"of {window}"), requests=1)
    clock.advance(0.5)
    for window in ("daily", "monthly"):
        await ledger.reserve(ExecutionContext(scope_id=f"of {window}"), requests=1)


async def test_a_wall_clock_that_is_set_opens_no_window(ledger: Ledger, clock: ManualClock) -> None:
    await ledger.set_budget(Budget(scope_id=SCOPE, max_requests_daily=1))
    await ledger.reserve(WHO, requests=1)
    for jump in (86_400, -2 * 86_400):
        clock.step(jump)
        assert await ledger.check_budget(WHO, requests=1) == BudgetDecision.DENY


async def test_what_is_settled_after_its_window_counts_in_it(
    ledger: Ledger, database: Database, clock: ManualClock
) -> None:
    await ledger.set_budget(Budget(scope_id=SCOPE, max_tokens_per_minute=10))
    over = await ledger.reserve(WHO, tokens=10)
    clock.advance(30)
    later = await ledger.reserve(WHO, tokens=10)
    await ledger.settle(over, Usage(input=10))
    assert (await held(database))[0] == 10
    await ledger.release(later)
    await ledger.reserve(WHO, tokens=10)


@pytest.mark.parametrize(
    ("limit", "wanted"),
    [
        ({"max_tokens_per_request": 9}, {"tokens": 10}),
        ({"max_cost_per_request": Decimal("0.000009")}, {"cost": Decimal("0.00001")}),
        ({"max_cost_total": Decimal("0.1")}, {"cost": Decimal("0.1000001")}),
        ({"max_tool_calls_daily": 0}, {"tool_calls": 1}),
        ({"max_turns_total": 1}, {"turns": 2}),
        ({"max_runtime_seconds_total": 1.5}, {"runtime_seconds": 1.6}),
    ],
)
async def test_what_could_never_fit_is_told_not_to_wait(
    ledger: Ledger, limit: dict[str, Decimal], wanted: dict[str, Decimal]
) -> None:
    await ledger.set_budget(Budget.model_validate({"scope_id": SCOPE, **limit}))
    with pytest.raises(BudgetExceededError) as refused:
        await ledger.reserve(WHO, **wanted)  # type: ignore[arg-type]
    assert (refused.value.reason, refused.value.limit) == ("too_large", next(iter(limit)))
    assert refused.value.retry_after is None


async def test_a_scope_counts_all_its_principals_and_a_principal_only_himself(ledger: Ledger) -> None:
    await ledger.set_budget(Budget(scope_id=SCOPE, max_requests_total=3))
    await ledger.set_budget(Budget(scope_id=SCOPE, principal_id="ann", max_requests_total=2))
    await ledger.set_budget(Budget(scope_id=SCOPE, role="dear", max_requests_total=1))
    await ledger.reserve(WHO, requests=1, role="dear")
    for role, limit in (("dear", "max_requests_total of role 'dear'"), ("cheap", None)):
        answer = await ledger.check_budget(BOB, requests=1, role=role)
        assert (answer == BudgetDecision.DENY) is (limit is not None)
        assert limit is None or (answer.reason or "").startswith(limit)
    await ledger.reserve(WHO, requests=1)
    assert "principal 'ann'" in ((await ledger.check_budget(WHO, requests=1)).reason or "")
    await ledger.reserve(BOB, requests=1)
    assert "the scope" in ((await ledger.check_budget(BOB, requests=1)).reason or "")
    assert await ledger.check_budget(who(scope="tenant-2"), requests=10**6) == BudgetDecision.ALLOW


async def test_a_child_has_the_smaller_of_its_own_budget_and_its_parents_rest(ledger: Ledger) -> None:
    await ledger.set_budget(Budget.of_run(SCOPE, "parent", BudgetSpec(max_tokens=100)))
    await ledger.set_budget(Budget.of_run(SCOPE, "child", BudgetSpec(max_tokens=80), parent_run_id="parent"))
    await ledger.set_budget(Budget.of_run(SCOPE, "grandchild", BudgetSpec(), parent_run_id="child"))
    runs = {name: WHO.model_copy(update={"run_id": name}) for name in ("parent", "child", "grandchild")}
    held_back = await ledger.reserve(runs["grandchild"], tokens=50)
    for name, room in (("parent", 50), ("child", 30), ("grandchild", 30)):
        assert await ledger.check_budget(runs[name], pending_tokens=room) == BudgetDecision.ALLOW
        assert await ledger.check_budget(runs[name], pending_tokens=room + 1) == BudgetDecision.DENY
    await ledger.reserve(runs["parent"], tokens=45)
    assert await ledger.check_budget(runs["grandchild"], pending_tokens=6) == BudgetDecision.DENY
    await ledger.release(held_back)
    assert await ledger.check_budget(runs["grandchild"], pending_tokens=55) == BudgetDecision.ALLOW


async def test_a_budget_counts_what_was_used_and_reserved_before_it_was_set(ledger: Ledger, database: Database) -> None:
    await ledger.record_model_usage(WHO, Usage(input=30))
    await ledger.record_model_usage(BOB, Usage(input=500))
    open_still = await ledger.reserve(WHO, tokens=40)
    await ledger.set_budget(Budget(scope_id=SCOPE, principal_id="ann", max_tokens_daily=100))
    assert await ledger.check_budget(WHO, pending_tokens=31) == BudgetDecision.DENY
    await ledger.settle(open_still, Usage(input=20))
    assert await ledger.check_budget(WHO, pending_tokens=50) == BudgetDecision.ALLOW
    assert (await held(database)) == (0, 0, 0)


async def test_a_budget_that_is_removed_and_set_again_has_forgotten_nothing(ledger: Ledger) -> None:
    budget = Budget(scope_id=SCOPE, max_tokens_total=10)
    await ledger.set_budget(budget)
    await ledger.record_model_usage(WHO, Usage(input=4))
    assert await ledger.remove_budget(budget) in (True, False)
    assert await ledger.budgets(SCOPE) == []
    await ledger.record_model_usage(WHO, Usage(input=4))
    await ledger.set_budget(budget)
    assert await ledger.budgets(SCOPE) == [budget]
    assert await ledger.check_budget(WHO, pending_tokens=3) == BudgetDecision.DENY


async def test_a_budget_in_money_refuses_a_model_without_a_price(ledger: Ledger) -> None:
    await ledger.set_budget(Budget(scope_id=SCOPE, max_cost_daily=Decimal(10)))
    with pytest.raises(BudgetExceededError, match="has no price") as refused:
        await ledger.reserve(WHO, tokens=1, cost=None)
    assert refused.value.reason == "no_price"


async def test_a_lease_that_runs_out_is_kept_at_its_maximum_and_reported(
    ledger: Ledger, database: Database, clock: ManualClock
) -> None:
    await ledger.set_budget(Budget(scope_id=SCOPE, max_tokens_total=100))
    lost = await ledger.reserve(WHO, tokens=60)
    kept = await ledger.reserve(WHO, tokens=10)
    clock.advance(59)
    assert await ledger.renew(kept)
    assert await ledger.expire() == []
    clock.advance(1)
    await ledger.expire()
    [event] = (await ledger.list_events(SCOPE, EventFilter(state=EventState.UNKNOWN))).events
    assert (event.event_id, event.total_tokens, event.lapsed, event.estimated) == (lost.reservation_id, 60, True, True)
    assert await ledger.check_budget(WHO, pending_tokens=31) == BudgetDecision.DENY
    assert not await ledger.renew(lost)
    late = await ledger.settle(lost, Usage(input=20))
    assert (late.state, late.total_tokens, late.lapsed) == (EventState.SETTLED, 20, True)
    assert await ledger.check_budget(WHO, pending_tokens=70) == BudgetDecision.ALLOW
    await ledger.release(kept)
    assert (await held(database)) == (0, 0, 0)


async def test_the_first_ending_counts_once(ledger: Ledger, database: Database) -> None:
    await ledger.set_budget(Budget(scope_id=SCOPE, max_tokens_total=100))
    reservation = await ledger.reserve(WHO, tokens=60)
    first = await ledger.settle(reservation, Usage(input=10, output=5))
    assert await ledger.settle(reservation, Usage(input=60)) == first
    assert await ledger.release(reservation) == first
    assert await ledger.check_budget(WHO, pending_tokens=85) == BudgetDecision.ALLOW
    assert (await held(database)) == (0, 0, 0)


async def test_an_overshoot_is_one_calls_excess_and_blocks_the_next(ledger: Ledger) -> None:
    await ledger.set_budget(Budget(scope_id=SCOPE, max_tokens_total=100))
    reservation = await ledger.reserve(WHO, tokens=100)
    event = await ledger.settle(reservation, Usage(input=100, output=200))
    assert event.excess_tokens == 200
    assert await ledger.check_budget(WHO, pending_tokens=1) == BudgetDecision.DENY


async def test_the_same_id_is_one_reservation_and_another_ones_id_a_conflict(ledger: Ledger) -> None:
    await ledger.set_budget(Budget(scope_id=SCOPE, max_tokens_total=100))
    first = await ledger.reserve(WHO, tokens=60, reservation_id="r-1")
    assert await ledger.reserve(WHO, tokens=60, reservation_id="r-1") == first
    with pytest.raises(StoreConflictError):
        await ledger.reserve(WHO, tokens=30, reservation_id="r-1")
    await ledger.reserve(who(scope="tenant-2"), tokens=60, reservation_id="r-1")
    assert (await ledger.usage(SCOPE)).total_tokens == 60
    await ledger.record_model_usage(WHO, Usage(input=7), event_id="e-1")
    await ledger.record_model_usage(WHO, Usage(input=7), event_id="e-1")
    assert (await ledger.usage(SCOPE)).total_tokens == 67


async def test_as_many_are_admitted_as_fit(ledger: Ledger, database: Database) -> None:
    await ledger.set_budget(Budget(scope_id=SCOPE, max_tokens_daily=100))

    async def call(number: int) -> bool:
        try:
            reservation = await ledger.reserve(WHO, tokens=10, requests=1, reservation_id=f"r-{number}")
        except BudgetExceededError:
            return False
        await ledger.settle(reservation, Usage(input=10))
        return True

    admitted = await asyncio.gather(*(call(number) for number in range(30)))
    assert sum(admitted) == 10
    assert (await held(database)) == (0, 0, 0)


async def test_events_are_listed_summed_up_and_exported(ledger: Ledger, clock: ManualClock) -> None:
    await ledger.set_budget(Budget(scope_id=SCOPE, max_tokens_total=50))
    for number in range(3):
        clock.advance(1)
        await ledger.record_model_usage(WHO, Usage(input=number, output=1), cost=Decimal("0.000001"))
    await ledger.record_tool_call(BOB, "=HYPERLINK()", runtime_seconds=0.25)
    with pytest.raises(BudgetExceededError):
        await ledger.reserve(WHO, tokens=51)
    with pytest.raises(BudgetExceededError):
        await ledger.reserve(WHO, tokens=52)
    usage = await ledger.usage(SCOPE, EventFilter(principal_id="ann"))
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens, usage.cost_micro) == (3, 3, 6, 3)
    assert (usage.requests, usage.turns, usage.open) == (3, 3, 0)
    whole = await ledger.usage(SCOPE)
    assert (whole.tool_calls, whole.runtime_ms, whole.events) == (1, 250, 4)

    first = await ledger.list_events(SCOPE, limit=2)
    rest = await ledger.list_events(SCOPE, after=first.next, limit=100)
    kinds = [event.type for event in (*first.events, *rest.events)]
    assert sorted(kinds) == ["budget_set", "model", "model", "model", "refused", "tool"]
    rows = list(csv.DictReader(io.StringIO(await ledger.export_csv(SCOPE))))
    assert {row["event_id"] for row in rows} == {event.event_id for event in (*first.events, *rest.events)}
    assert "'=HYPERLINK()" in {row["detail"] for row in rows}
    assert len(json.loads(await ledger.export_json(SCOPE, EventFilter(type="model")))) == 3
    assert (await ledger.usage("tenant-2")).events == 0


async def test_pages_hold_every_event_once_however_fine_the_clock_is(ledger: Ledger, clock: ManualClock) -> None:
    for _ in range(20):
        clock.advance(0.0000133)
        await ledger.record_tool_call(WHO, "look")
    page, seen = await ledger.list_events(SCOPE, limit=1), list[str]()
    while page.next is not None and len(seen) < 40:
        seen += [event.event_id for event in page.events]
        page = await ledger.list_events(SCOPE, after=page.next, limit=1)
    seen += [event.event_id for event in page.events]
    assert (len(seen), len(set(seen))) == (20, 20)


@pytest.mark.parametrize("spelling", ["", " tenant-1", "tenant-1 ", "tenant-1\u200b", "te\u0301nant", "t\x00"])
async def test_another_spelling_of_a_scope_is_refused_not_another_budget(ledger: Ledger, spelling: str) -> None:
    for ask in (
        lambda: ledger.usage(spelling),
        lambda: ledger.list_events(spelling),
        lambda: ledger.budgets(spelling),
        lambda: ledger.reserve(ExecutionContext.model_construct(scope_id=spelling, principal_id="a"), tokens=1),
    ):
        with pytest.raises(IdentityError):
            await ask()
    with pytest.raises(ValueError, match="scope id"):
        Budget(scope_id=spelling)


async def test_nothing_negative_is_counted(ledger: Ledger) -> None:
    for ask in (
        lambda: ledger.reserve(WHO, tokens=-1),
        lambda: ledger.reserve(WHO, cost=Decimal("-0.01")),
        lambda: ledger.check_budget(WHO, pending_tokens=-1),
        lambda: ledger.record_tool_call(WHO, "t", runtime_seconds=-1.0),
    ):
        with pytest.raises(ValueError, match="an amount is between"):
            await ask()
    with pytest.raises(ValueError, match="greater than or equal"):
        Usage(input=-5)


async def test_without_an_await_a_budget_is_there_for_the_next_operation(ledger: Ledger) -> None:
    ledger.set_budget(Budget(scope_id=SCOPE, max_tokens_total=1))
    assert await ledger.check_budget(WHO, pending_tokens=2) == BudgetDecision.DENY
