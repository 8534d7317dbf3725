"""What crosses a handle between predictor and nodes: one tuple of plain values each way.

Ray's pickler calls into Python for every object that is not plain, and for every argument anew: with objects, the
pickling of a small call takes as long as the node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple
from datetime import UTC, datetime
from typing import Any

from agentflow.schedule import Failure
from flow_runtime.call import NodeCall
from runtime_core.context import ExecutionContext
from runtime_core.loop import NodeOutcome
from runtime_core.report import NO_USE, ModelUse
from runtime_core.sessions.records import RecordUsage, SessionRecord

WireRecord = tuple[Any, ...]
WireCall = tuple[dict[str, Any], dict[str, Any], dict[str, Any], tuple[WireRecord, ...]]
WireOutcome = tuple[dict[str, Any] | None, tuple[Any, ...] | None, int, tuple[int, ...] | None, tuple[WireRecord, ...]]

_PLAIN_FIELDS = tuple(name for name in SessionRecord.model_fields if name != "usage")
_USAGE_FIELDS = tuple(RecordUsage.model_fields)


def call_to_wire(inputs: Mapping[str, Any], call: NodeCall) -> WireCall:
    deadline = call.context.deadline
    context = {**call.context.__dict__, "deadline": None if deadline is None else deadline.timestamp()}
    return dict(inputs), context, dict(call.fields), records_to_wire(call.history)


def call_from_wire(wire: WireCall) -> tuple[dict[str, Any], NodeCall]:
    """The inputs and the call. The context was checked when the run began."""
    inputs, context, fields, history = wire
    if context["deadline"] is not None:
        context["deadline"] = datetime.fromtimestamp(context["deadline"], UTC)
    return inputs, NodeCall(
        context=ExecutionContext.model_construct(**context), fields=fields, history=records_from_wire(history)
    )


def outcome_to_wire(outcome: NodeOutcome) -> WireOutcome:
    return (
        None if outcome.outputs is None else dict(outcome.outputs),
        None if outcome.failure is None else astuple(outcome.failure),
        outcome.attempts,
        None if outcome.use == NO_USE else astuple(outcome.use),
        records_to_wire(outcome.records),
    )


def outcome_from_wire(wire: WireOutcome) -> NodeOutcome:
    outputs, failure, attempts, use, records = wire
    return NodeOutcome(
        outputs=outputs,
        failure=None if failure is None else Failure(*failure),
        attempts=attempts,
        use=NO_USE if use is None else ModelUse(*use),
        records=records_from_wire(records),
    )


def records_to_wire(records: Iterable[SessionRecord]) -> tuple[WireRecord, ...]:
    """The values of each record's fields, the usage last."""
    return tuple(
        (
            *map(record.__dict__.__getitem__, _PLAIN_FIELDS),
            None if record.usage is None else _usage_values(record.usage),
        )
        for record in records
    )


def records_from_wire(wire: Iterable[WireRecord]) -> tuple[SessionRecord, ...]:
    """The records, which were checked when they were made."""
    return tuple(_record(*values) for values in wire)


def _record(*values: Any) -> SessionRecord:
    *plain, usage = values
    return SessionRecord.model_construct(
        **dict(zip(_PLAIN_FIELDS, plain, strict=True)),
        usage=None if usage is None else RecordUsage.model_construct(**dict(zip(_USAGE_FIELDS, usage, strict=True))),
    )


def _usage_values(usage: RecordUsage) -> tuple[int, ...]:
    return tuple(map(usage.__dict__.__getitem__, _USAGE_FIELDS))
