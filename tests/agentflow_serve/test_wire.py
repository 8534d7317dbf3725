"""What crosses a handle arrives as it was sent."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from agentflow.failure import Failure, Refused
from agentflow_serve.wire import call_from_wire, call_to_wire, outcome_from_wire, outcome_to_wire
from flow_runtime.call import NodeCall, OnExceed
from runtime_core.context import BudgetSpec, ExecutionContext, PolicyRef
from runtime_core.outcome import NodeOutcome
from runtime_core.report import ModelUse
from runtime_core.sessions.records import RecordUsage, SessionRecord

CONTEXTS = [
    ExecutionContext(),
    ExecutionContext(
        scope_id="tenant-1",
        principal_id="p",
        session_id="s",
        job_id="j",
        parent="run-0",
        deadline=datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC),
        budgets=BudgetSpec(max_tokens=5, max_cost=Decimal("0.25")),
        policy_ref=PolicyRef(name="strict"),
        metadata={"k": [1]},
    ),
]
RECORDS = (
    SessionRecord(record_id="1", run_id="r", role="user", text="hi", node="chat"),
    SessionRecord(
        record_id="2",
        run_id="r",
        role="assistant",
        text="",
        tool_calls=({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}},),
        usage=RecordUsage(input_tokens=1, output_tokens=2),
    ),
    SessionRecord(record_id="3", run_id="r", role="tool", text="ok", tool_call_id="c"),
)


@pytest.mark.parametrize("context", CONTEXTS, ids=["plain", "full"])
def test_a_call(context: ExecutionContext):
    for memory in (None, (), RECORDS):
        inputs = {"a": {"k": (1, None)}, "b": None}
        on_exceed = None if context.budgets is None else OnExceed("degrade", "small")
        call = NodeCall(context=context, fields={"x": {"k": None}}, memory=memory, on_exceed=on_exceed)
        assert call_from_wire(pickle.loads(pickle.dumps(call_to_wire(inputs, call)))) == (inputs, call)


@pytest.mark.parametrize(
    "outcome",
    [
        NodeOutcome(outputs={"out": {"k": None}}),
        NodeOutcome(outputs={}, attempts=3, use=ModelUse(1, 2, 3, 4, 5, 6)),
        NodeOutcome(failure=Failure("why", "timeout", 2, 1.5), attempts=2),
        NodeOutcome(
            failure=Failure("no", "budget_exceeded", 1, 60.0, Refused("too_large", "max_tokens_daily", "daily"))
        ),
        NodeOutcome(outputs={}, records=RECORDS),
    ],
)
def test_an_outcome(outcome: NodeOutcome):
    assert outcome_from_wire(pickle.loads(pickle.dumps(outcome_to_wire(outcome)))) == outcome
