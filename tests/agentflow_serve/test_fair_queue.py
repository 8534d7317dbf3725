"""The fair queue: bounded, in turn, nobody forgotten, whatever comes and goes in which order."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agentflow_serve.errors import RequestRefused
from agentflow_serve.fair_queue import FairQueue, ScopeFull
from agentflow_serve.turns import Turns

SCOPES = st.sampled_from("abcd")


class Queues(RuleBasedStateMachine):
    """Against a model that keeps lists and looks through all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0
        self.running: list[tuple[str, int]] = []
        self.waiting: list[tuple[str, int]] = []

    @rule(per_scope=st.integers(1, 3), waiting=st.integers(0, 4), total=st.none() | st.integers(1, 5))
    @precondition(lambda self: not self.numbers)
    def begin(self, per_scope: int, waiting: int, total: int | None) -> None:
        self.numbers, self.most = 1, (per_scope, waiting, total)
        self.queue: FairQueue[int] = FairQueue(per_scope=per_scope, waiting=waiting, total=total)
        self.passed_over: Counter[int] = Counter()

    def count(self, tickets: list[tuple[str, int]], scope: str) -> int:
        return sum(each == scope for each, _ in tickets)

    def may_start(self, scope: str) -> bool:
        per_scope, _, total = self.most
        return self.count(self.running, scope) < per_scope and (total is None or len(self.running) < total)

    @rule(scope=SCOPES)
    @precondition(lambda self: self.numbers)
    def enter(self, scope: str) -> None:
        self.numbers += 1
        ticket = (scope, self.numbers)
        starts = self.may_start(scope)
        full = not starts and self.count(self.waiting, scope) >= self.most[1]
        try:
            assert self.queue.enter(*ticket) == starts and not full
        except ScopeFull:
            assert full
        else:
            (self.running if starts else self.waiting).append(ticket)

    @rule(data=st.data())
    @precondition(lambda self: self.running)
    def leave(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(self.running))
        self.running.remove(gone)
        could = {scope for scope, _ in self.waiting if self.may_start(scope)}
        started = self.queue.leave(gone[0])
        if started is None:
            assert not could, "somebody could have started"
            return
        [ticket] = [each for each in self.waiting if each[1] == started]
        assert ticket[0] in could, "beyond a bound"
        assert ticket == next(each for each in self.waiting if each[0] == ticket[0]), "the oldest of a scope goes first"
        self.waiting.remove(ticket)
        self.running.append(ticket)
        # No starvation: while a scope could start, each of the others starts at most once before it.
        first = {next(number for each, number in self.waiting if each == scope) for scope in could - {ticket[0]}}
        self.passed_over = Counter({number: self.passed_over[number] + 1 for number in first})
        assert max(self.passed_over.values(), default=0) < 4

    @rule(data=st.data())
    @precondition(lambda self: self.waiting)
    def give_up(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(gone)
        assert self.queue.give_up(*gone)
        assert not self.queue.give_up(*gone)

    @rule(data=st.data())
    @precondition(lambda self: self.running)
    def one_that_runs_cannot_give_up(self, data: st.DataObject) -> None:
        assert not self.queue.give_up(*data.draw(st.sampled_from(self.running)))

    @invariant()
    def nobody_waits_who_could_start_and_nothing_is_left_over(self) -> None:
        if self.numbers:
            assert not any(self.may_start(scope) for scope, _ in self.waiting)
            assert self.queue.is_empty == (not self.running and not self.waiting)


TestQueues = Queues.TestCase


@given(st.integers(1, 30))
def test_a_free_place_goes_round_however_much_one_scope_has_waiting(flood: int):
    queue: FairQueue[str] = FairQueue(per_scope=1, waiting=100, total=1)
    for number in range(flood + 1):
        queue.enter("flood", f"flood-{number}")
    for scope in "abc":
        assert not queue.enter(scope, scope)
    order: list[str | None] = []
    running = "flood"
    while (started := queue.leave(running)) is not None:
        order.append(started)
        running = started.split("-")[0]
    assert [each for each in order[:4] if each in ("a", "b", "c")] == ["a", "b", "c"]
    assert len(order) == flood + 3 and queue.is_empty


@pytest.mark.parametrize("leaves", ["early", "as its turn comes", "before it knows that it is its turn"])
async def test_whoever_leaves_the_queue_hands_its_turn_on(leaves: str):
    waiting: list[int] = []
    turns = Turns(per_scope=1, waiting=10, total=1, on_waiting=waiting.append)
    done: list[str] = []

    async def run(scope: str) -> None:
        async with turns.turn(scope):
            done.append(scope)

    async with turns.turn("a"):
        leaver, last = tasks = [asyncio.create_task(run(scope)) for scope in ("leaver", "last")]
        await asyncio.sleep(0)
        if leaves != "before it knows that it is its turn":
            leaver.cancel()
        if leaves == "early":
            await asyncio.wait({leaver})
    leaver.cancel()
    await asyncio.wait(tasks)
    assert done == ["last"] and leaver.cancelled() and not last.cancelled()
    assert waiting == [1, 2, 1, 0]
    await run("a")


async def test_a_scope_that_fills_its_queue_is_refused_and_another_is_not():
    turns = Turns(per_scope=1, waiting=0, total=None)
    async with turns.turn("a"), turns.turn("b"):
        with pytest.raises(RequestRefused) as refused:
            async with turns.turn("a"):
                pass
        assert (refused.value.status, refused.value.code, refused.value.retry_after) == (429, "rate_limited", 1.0)
    async with turns.turn("a"):
        pass
