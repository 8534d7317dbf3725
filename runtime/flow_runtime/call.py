"""What a node is told about the run it belongs to. It crosses process borders with every call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from runtime_core.context import ExecutionContext
from runtime_core.loop import NodeOutcome


@dataclass(frozen=True, slots=True)
class NodeCall:
    """`fields` are the prepared request with `trace_id` and `event_time`: what nodes see as `context`.

    They are data from a caller. Who the caller is stands in `context` alone.
    """

    context: ExecutionContext
    fields: Mapping[str, Any]

    def __reduce__(self) -> tuple[Any, ...]:
        # Plain values and a number for the time: pydantic's and datetime's own ways through pickle take ten times as
        # long, and every handle call pays for it.
        deadline = self.context.deadline
        plain = {**self.context.__dict__, "deadline": None if deadline is None else deadline.timestamp()}
        return _from_plain, (plain, self.fields)


def _from_plain(context: dict[str, Any], fields: Mapping[str, Any]) -> NodeCall:
    """What another process of this app sent; it was checked when it was made."""
    if context["deadline"] is not None:
        context["deadline"] = datetime.fromtimestamp(context["deadline"], UTC)
    return NodeCall(context=ExecutionContext.model_construct(**context), fields=fields)


Run = Callable[[Mapping[str, Any], NodeCall], Awaitable[NodeOutcome]]
"""A node's work on its inputs, or one layer of it. Failures are values."""
