"""Meters: what a tree of runs takes never exceeds a limit above it."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime import BudgetExceededError, BudgetSpec
from agent_runtime.orchestration.budgets import Meter
from llm_client import CompletionResult
from runtime_core.call_log.records import Usage
from runtime_core.clock import ManualClock

limits = st.none() | st.builds(
    BudgetSpec,
    max_turns=st.none() | st.integers(0, 4),
    max_tool_calls=st.none() | st.integers(0, 4),
    max_tokens=st.none() | st.integers(0, 60),
)
ANSWER = CompletionResult(content="", finish_reason="stop", usage=Usage(input=10, output=5), cost_micro=250_000)


@given(st.lists(st.tuples(st.integers(0, 9), limits), max_size=9), st.lists(st.integers(0, 9), max_size=40), limits)
def test_no_run_takes_more_than_any_run_above_it_may(
    tree: list[tuple[int, BudgetSpec | None]], calls: list[int], root: BudgetSpec | None
):
    meters = [Meter(root, clock=ManualClock())]
    above = {0: -1}
    for parent, own in tree:
        above[len(meters)] = parent % len(meters)
        meters.append(meters[parent % len(meters)].child(own))
    for call in calls:
        meter = meters[call % len(meters)]
        with suppress(BudgetExceededError):
            meter.begin_turn()
            meter.heard(ANSWER)
            meter.begin_tool_call()
    for index, meter in enumerate(meters):
        allowed = meter.limits
        assert allowed.max_turns is None or meter.turns <= allowed.max_turns
        assert allowed.max_tool_calls is None or meter.tool_calls <= allowed.max_tool_calls
        assert allowed.max_tokens is None or meter.use.input_tokens + meter.use.output_tokens < allowed.max_tokens + 15
        below = [meters[child] for child, parent in above.items() if parent == index]
        assert meter.turns >= sum(child.turns for child in below)
        for child in below:
            for field, left in meter.rest():
                if left is not None:
                    assert getattr(child.rest(), field) <= left


def test_a_run_without_inheritance_is_counted_above_and_not_bound():
    parent = Meter(BudgetSpec(max_turns=1), clock=ManualClock())
    child = parent.child(inherits=False)
    child.begin_turn()
    child.begin_turn()
    assert parent.turns == 2
    with pytest.raises(BudgetExceededError):
        parent.begin_turn()


def test_time_and_money_are_counted_too():
    clock = ManualClock()
    meter = Meter(BudgetSpec(max_cost=Decimal("0.5"), max_runtime_seconds=10), clock=clock)
    for left in ("0.25", "0"):
        meter.begin_turn()
        meter.heard(ANSWER)
        assert meter.rest().max_cost == Decimal(left)
    meter.heard(ANSWER.model_copy(update={"cached": True}))
    assert meter.use.calls == 2, "a cached answer costs nothing"
    with pytest.raises(BudgetExceededError, match=r"\$0\.5") as spent:
        meter.begin_turn()
    assert spent.value.limit == "max_cost"
    slow = Meter(BudgetSpec(max_runtime_seconds=10), clock=clock)
    clock.advance(10)
    with pytest.raises(BudgetExceededError, match="10 s"):
        slow.check()
