"""What a method of a compiled flow is given and what it gives: its inputs, the run it is part of, its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from flow_runtime.call import NodeCall
from runtime_core.context import ExecutionContext
from runtime_core.outcome import NodeOutcome

Inputs = Mapping[str, Any]
"""By input port; None for an optional one that nothing feeds."""
Outputs = Mapping[str, Any]
"""By output port."""


class Context:
    """The run that a node is called in. `Context(request)` makes one for a test.

    `get` reads any field of the request; the named ones are None when the request has none.
    """

    def __init__(self, request: Mapping[str, Any] | None = None, *, call: NodeCall | None = None) -> None:
        self.call = call or _call(request or {})
        self.outcome = NodeOutcome(attempts=0)

    def get(self, name: str, default: Any = None) -> Any:
        return self.call.fields.get(name, default)

    @property
    def user_id(self) -> Any:
        return self.get("user_id")

    @property
    def session_id(self) -> Any:
        return self.get("session_id")

    @property
    def trace_id(self) -> str:
        return self.call.fields["trace_id"]

    @property
    def event_time(self) -> str:
        return self.call.fields["event_time"]

    @property
    def auth(self) -> Any:
        return self.get("auth")

    def add(self, outcome: NodeOutcome) -> None:
        """What came of a body; a method may run its body more than once, and all that it took counts."""
        before = self.outcome
        self.outcome = replace(outcome, attempts=before.attempts + outcome.attempts, use=before.use + outcome.use)


def _call(request: Mapping[str, Any]) -> NodeCall:
    session_id, trace_id = request.get("session_id"), request.get("trace_id")
    context = ExecutionContext(session_id=session_id if isinstance(session_id, str) else None)
    if trace_id is not None:
        context = ExecutionContext(session_id=context.session_id, run_id=context.run_id, trace_id=trace_id)
    fields = {"trace_id": context.trace_id, "event_time": datetime.now(UTC).isoformat(), **request}
    return NodeCall(context=context, fields=fields)
