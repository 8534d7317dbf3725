"""What crosses a handle between predictor and nodes: one tuple of plain values each way.

Ray's pickler calls into Python for every object that is not plain, and for every argument anew: with objects, the
pickling of a small call takes as long as the node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple
from datetime import UTC, datetime
from typing import Any

from agentflow.failure import Failure, Refused
from flow_runtime.call import NodeCall, OnExceed
from runtime_core.context import BudgetSpec, ExecutionContext
from runtime_core.outcome import NodeOutcome
from runtime_core.report import NO_USE, ModelUse
from runtime_core.sessions.records import SessionRecord

WireRecords = list[dict[str, Any]]
WireOnExceed = tuple[str, str | None] | None
WireCall = tuple[dict[str, Any], dict[str, Any], dict[str, Any], WireRecords | None, WireOnExceed]
WireOutcome = tuple[dict[str, Any] | None, tuple[Any, ...] | None, int, tuple[int, ...] | None, WireRecords | None]


def call_to_wire(inputs: Mapping[str, Any], call: NodeCall) -> WireCall:
    deadline = call.context.deadline
    context = {**call.context.__dict__, "deadline": None if deadline is None else deadline.timestamp()}
    if call.context.budgets is not None:
        context["budgets"] = call.context.budgets.model_dump()
    memory = None if call.memory is None else _records_to_wire(call.memory)
    on_exceed = None if call.on_exceed is None else (call.on_exceed.then, call.on_exceed.degrade_role)
    return dict(inputs), context, dict(call.fields), memory, on_exceed


def call_from_wire(wire: WireCall) -> tuple[dict[str, Any], NodeCall]:
    """The inputs and the call. The context was checked when the run began."""
    inputs, context, fields, memory, on_exceed = wire
    if context["deadline"] is not None:
        context["deadline"] = datetime.fromtimestamp(context["deadline"], UTC)
    if context["budgets"] is not None:
        context["budgets"] = BudgetSpec.model_construct(**context["budgets"])
    return inputs, NodeCall(
        context=ExecutionContext.model_construct(**context),
        fields=fields,
        memory=None if memory is None else _records_from_wire(memory),
        on_exceed=None if on_exceed is None else OnExceed(*on_exceed),  # pyright: ignore[reportArgumentType]
    )


def outcome_to_wire(outcome: NodeOutcome) -> WireOutcome:
    return (
        None if outcome.outputs is None else dict(outcome.outputs),
        None if outcome.failure is None else astuple(outcome.failure),
        outcome.attempts,
        None if outcome.use == NO_USE else astuple(outcome.use),
        _records_to_wire(outcome.records) if outcome.records else None,
    )


def outcome_from_wire(wire: WireOutcome) -> NodeOutcome:
    outputs, failure, attempts, use, records = wire
    return NodeOutcome(
        outputs=outputs,
        failure=None if failure is None else _failure_from_wire(failure),
        attempts=attempts,
        use=NO_USE if use is None else ModelUse(*use),
        records=_records_from_wire(records) if records else (),
    )


def _failure_from_wire(wire: tuple[Any, ...]) -> Failure:
    *facts, refused = wire
    return Failure(*facts, refused=None if refused is None else Refused(*refused))


def _records_to_wire(records: Iterable[SessionRecord]) -> WireRecords:
    return [record.model_dump() for record in records]


def _records_from_wire(wire: WireRecords) -> tuple[SessionRecord, ...]:
    return tuple(SessionRecord.model_validate(record) for record in wire)
