"""Reservations and endings that are made together leave what they leave one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_runtime import Budget
from agent_runtime.ledger import budget_ops, ops
from agent_runtime.ledger.amounts import Amounts
from agent_runtime.ledger.records import MODEL, Entry, EventState, Used
from agent_runtime.ledger.transactions import ending_of, prepare_ledger, reserving
from runtime_core.call_log.records import Attempt, AttemptStatus, CallKind, Ending, Usage
from runtime_core.errors import StoreConflictError
from runtime_core.stores import Database, open_database
from runtime_core.stores.joint import Apart, Joint, apart, joined, together
from runtime_core.stores.memory import MemoryDatabase
from runtime_core.stores.scope import everywhere, in_scope
from runtime_core.stores.sql import Op, OpFactory, Sql
from support.stores import fresh_store_url

MINUTE = 1_700_000_040
"""A minute and a half before a minute begins."""

entries = st.lists(
    st.tuples(
        st.sampled_from(["a", "a", "b"]),
        st.sampled_from(["ann", "bob"]),
        st.sampled_from([None, "chat"]),
        st.sampled_from([None, "r1", "r2", "child"]),
        st.integers(0, 9),
        st.sampled_from([0, 1, 59, 60, 61]),
    ),
    max_size=14,
)
limits = st.none() | st.integers(0, 40)
actuals = st.none() | st.integers(0, 12).map(lambda tokens: Amounts(tokens=tokens, requests=1))
uses = st.lists(st.tuples(st.sampled_from(["settled", "released", "unknown"]), actuals), min_size=14, max_size=14)


@settings(max_examples=60, deadline=None)
@given(entries, entries, st.lists(limits, min_size=8, max_size=8), uses, st.integers(0, 2))
def test_together_is_as_one_after_the_other(
    earlier: list[Any], later: list[Any], most: list[int | None], used: list[Any], again: int
) -> None:
    budgets = [
        Budget(scope_id="a", max_tokens_daily=most[0], max_tokens_per_minute=most[1]),
        Budget(scope_id="a", principal_id="ann", max_tokens_total=most[2]),
        Budget(scope_id="a", role="chat", max_requests_per_minute=most[3]),
        Budget(scope_id="a", run_id="r1", max_tokens_total=most[4]),
        Budget(scope_id="a", run_id="child", parent_run_id="r1", max_tokens_total=most[5]),
        Budget(scope_id="b", max_tokens_total=most[6], max_requests_daily=most[7]),
    ]

    async def left(*, at_once: bool) -> Any:
        async with MemoryDatabase() as database:
            await prepare_ledger(database)
            for number, entry in enumerate(earlier):
                await database.run(Joint(ops.reserve_all, _entry(f"early-{number}", *entry), entry[0]))
            for number, budget in enumerate(budgets):
                await database.run(_setting(budget, number))
            wanted = [_entry(f"late-{number}", *each) for number, each in enumerate(sorted(later, key=lambda e: e[-1]))]
            wanted += [_entry(f"early-{number}", *each) for number, each in enumerate(earlier[:again])]
            wanted.sort(key=lambda each: each.at)
            said = await _run(
                database, [Joint(ops.reserve_all, each, each.scope_id) for each in wanted], at_once=at_once
            )
            ends = [
                (each.scope_id, each.event_id, Used(EventState(state), each.at + 1, actual))
                for each, (state, actual) in zip(wanted, used, strict=False)
            ]
            rows = await _run(database, [Joint(ops.end_all, each, each[0]) for each in ends], at_once=at_once)
            return said, rows, await database.read(everywhere(_ledger))

    assert asyncio.run(left(at_once=True)) == asyncio.run(left(at_once=False))


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


async def test_calls_of_several_scopes_go_together_on_every_database(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    async def left(folder: Path, *, at_once: bool) -> Any:
        folder.mkdir()
        async with open_database(await fresh_store_url(kind, request, folder), node_id="node-1") as database:
            await prepare_ledger(database)
            for principal in (None, "ann", "bob"):
                budget = Budget(scope_id="a", principal_id=principal, max_tokens_daily=50)
                await database.run(_setting(budget, 1))
            booked = [
                (_attempt(n), _entry(f"call-{n}", "ab"[n % 2], "ann" if n < 5 else "bob", "chat", f"r{n}", 10, 0))
                for n in range(13)
            ]
            refusals = await _run(database, [reserving(*each) for each in booked], at_once=at_once)
            fitting = [each for each, refusal in zip(booked, refusals, strict=True) if refusal is None]
            endings = [(attempt, _ending(n), entry) for n, (attempt, entry) in enumerate(fitting)]
            rows = await _run(database, [ending_of(*each) for each in endings], at_once=at_once)
            return refusals, rows, await database.read(everywhere(_ledger)), await database.read(everywhere(_calls))

    together, apart = await left(tmp_path / "t", at_once=True), await left(tmp_path / "a", at_once=False)
    assert together == apart
    refusals, rows, *_ = together
    assert (sum(refusal is None for refusal in refusals), len(rows)) == (11, 11)


async def test_a_repeat_refuses_nobody_beside_it() -> None:
    async with MemoryDatabase() as database:
        await prepare_ledger(database)
        await database.run(_setting(Budget(scope_id="a", max_tokens_total=100), 1))
        first, other = (_entry(name, "a", "ann", None, None, 40, 0) for name in ("one", "two"))
        factories = [Joint(ops.reserve_all, each, "a") for each in (first, other)]
        assert await database.run(factories[0]) is None
        assert await _run(database, factories, at_once=True) == [None, None]


async def test_the_end_of_a_cancelled_call_may_come_with_its_reservation() -> None:
    """Behind another end, which is when it would be done first."""
    async with MemoryDatabase() as database:
        await prepare_ledger(database)
        booked = [(_attempt(n), _entry(f"call-{n}", "ab"[n % 2], "ann", "chat", f"r{n}", 10, 0)) for n in range(2)]
        await database.run(reserving(*booked[0]))
        endings = [ending_of(attempt, _ending(1), entry) for attempt, entry in booked]
        group = [endings[0], reserving(*booked[1]), endings[1], endings[1]]
        _, refusal, ended, again = await _run(database, group, at_once=True)
        assert refusal is None
        assert ended.status == again.status == AttemptStatus.SETTLED


async def test_runs_that_are_each_others_parents_count_once() -> None:
    async with MemoryDatabase() as database:
        await prepare_ledger(database)
        for number, (run, parent) in enumerate((("r1", "r2"), ("r2", "r1"))):
            budget = Budget(scope_id="a", run_id=run, parent_run_id=parent, max_tokens_total=100)
            await database.run(_setting(budget, number))
        entry = _entry("one", "a", "ann", None, "r1", 40, 0)
        assert await database.run(Joint(ops.reserve_all, entry, "a")) is None
        await database.run(Joint(ops.end_all, ("a", "one", Used(EventState.SETTLED, entry.at, Amounts(10))), "a"))
        counters = (await database.read(_ledger))[1]
        assert {(row[3], row[6], row[12]) for row in counters} == {("r1", 10, 0), ("r2", 10, 0)}


async def test_what_cannot_go_together_is_told_and_does_its_work_alone(tmp_path: Path) -> None:
    """Twice the same reservation in one group, and one that is another's: both callers get what they get alone."""
    async with open_database(f"sqlite:///{tmp_path}/store.db", node_id="node-1") as database:
        await prepare_ledger(database)
        first, other = _entry("one", "a", "ann", None, None, 5, 0), _entry("one", "a", "bob", None, None, 6, 0)
        with pytest.raises(Apart):
            await database.run(lambda: ops.reserve_all([first, first]))
        said = await asyncio.gather(
            *(database.run(Joint(ops.reserve_all, each, "a")) for each in (first, first, other)),
            *(
                database.run(Joint(ops.reserve_all, _entry(f"more-{n}", "a", "ann", None, None, 5, 0), "a"))
                for n in range(9)
            ),
            return_exceptions=True,
        )
        assert [each for each in said if each is not None] == [said[2]]
        assert isinstance(said[2], StoreConflictError)
        assert len((await database.read(everywhere(_ledger)))[0]) == 10


async def _run(database: Database, factories: Sequence[OpFactory[Any]], *, at_once: bool) -> list[Any]:
    if at_once:
        try:
            return await database.run(everywhere(lambda: together(joined(factories))))
        except Apart:
            return await database.run(everywhere(lambda: together(apart(factories))))
    return [await database.run(each) for each in factories]


def _setting(budget: Budget, number: int) -> OpFactory[None]:
    event_id = f"b-{budget.principal_id}-{number}"
    return in_scope(budget.scope_id, lambda: budget_ops.set_budget(budget, event_id, MINUTE))


def _entry(
    event_id: str, scope_id: str, principal: str, role: str | None, run: str | None, tokens: int, second: int
) -> Entry:
    most = Amounts(tokens=tokens, requests=1)
    at = MINUTE + second
    return Entry(
        scope_id, event_id, MODEL, at, most, principal_id=principal, role=role, run_id=run, lease_until=at + 60
    )


def _attempt(number: int) -> Attempt:
    return Attempt(
        scope_id="ab"[number % 2],
        attempt_id=f"call-{number}",
        call_id="c",
        number=number + 1,
        kind=CallKind.CHAT,
        role="chat",
        provider="p",
        model="m",
        request_hash="0" * 64,
        reserved_at=MINUTE + 0.25,
        lease_until=MINUTE + 60.0,
        run_id=f"r{number}",
    )


def _ending(number: int) -> Ending:
    """Two of three with an answer, some of which are the same."""
    if number % 3 == 0:
        return Ending(status=AttemptStatus.UNKNOWN, ended_at=MINUTE + 1.5, error="gone")
    usage = Usage(input=number, output=2)
    answer = f"answer {number % 4}"
    return Ending(
        status=AttemptStatus.SETTLED, ended_at=MINUTE + 1.5 + number, usage=usage, cost_micro=3, answer=answer
    )


def _ledger() -> Op[list[Any]]:
    events = yield Sql("SELECT * FROM runtime_ledger ORDER BY scope_id, event_id")
    counters = yield Sql("SELECT * FROM ledger_counters ORDER BY scope_id, principal_id, role, run_id, period")
    return [events, counters]


def _calls() -> Op[list[Any]]:
    columns = (
        "scope_id, attempt_id, number, status, reserved_at, ended_at, input_tokens, cost_micro, answer_hash, error"
    )
    calls = yield Sql(f"SELECT {columns} FROM calls ORDER BY scope_id, attempt_id")
    answers = yield Sql("SELECT scope_id, answer_hash, size, kept_at, content FROM answers ORDER BY 1, 2")
    return [calls, answers]
