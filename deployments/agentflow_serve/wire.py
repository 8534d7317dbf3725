"""What crosses a handle between predictor and nodes: one tuple of plain values each way.

Ray's pickler calls into Python for every object that is not plain, and for every argument anew: with objects, the
pickling of a small call takes as long as the node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple
from datetime import UTC, datetime
from typing import Any

from agentflow.schedule import Failure
from flow_runtime.call import NodeCall
from runtime_core.context import ExecutionContext
from runtime_core.loop import NodeOutcome
from runtime_core.report import NO_USE, ModelUse

WireCall = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]
WireOutcome = tuple[dict[str, Any] | None, tuple[Any, ...] | None, int, tuple[int, ...] | None]


def call_to_wire(inputs: Mapping[str, Any], call: NodeCall) -> WireCall:
    deadline = call.context.deadline
    context = {**call.context.__dict__, "deadline": None if deadline is None else deadline.timestamp()}
    return dict(inputs), context, dict(call.fields)


def call_from_wire(wire: WireCall) -> tuple[dict[str, Any], NodeCall]:
    """The inputs and the call. The context was checked when the run began."""
    inputs, context, fields = wire
    if context["deadline"] is not None:
        context["deadline"] = datetime.fromtimestamp(context["deadline"], UTC)
    return inputs, NodeCall(context=ExecutionContext.model_construct(**context), fields=fields)


def outcome_to_wire(outcome: NodeOutcome) -> WireOutcome:
    return (
        None if outcome.outputs is None else dict(outcome.outputs),
        None if outcome.failure is None else astuple(outcome.failure),
        outcome.attempts,
        None if outcome.use == NO_USE else astuple(outcome.use),
    )


def outcome_from_wire(wire: WireOutcome) -> NodeOutcome:
    outputs, failure, attempts, use = wire
    return NodeOutcome(
        outputs=outputs,
        failure=None if failure is None else Failure(*failure),
        attempts=attempts,
        use=NO_USE if use is None else ModelUse(*use),
    )
