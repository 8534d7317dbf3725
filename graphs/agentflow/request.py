"""A request held against the flow's signature: all that is missing or does not fit, and the defaults filled in."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from datetime import datetime
from typing import Any

from agentflow.errors import RequestInvalid
from agentflow.fit import misfit
from agentflow.schemas import Schema, compile_schema
from agentflow.signature import FlowField, Signature
from agentflow.trace_id import TRACE_ID


class RequestCheck:
    """Checks requests against one signature; its schemas are compiled once."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._schemas: dict[str, Schema] = {
            field.name: compile_schema(field.schema) for field in signature.inputs if field.schema is not None
        }

    def prepare(self, request: Mapping[str, Any], *, trace_id: str, event_time: str) -> dict[str, Any]:
        """The run's fields: the request with defaults, `trace_id` and `event_time` (UTC, ISO 8601).

        A client's own `event_time` stands, for point-in-time reads, and so does its `trace_id` (Q13). Raises
        RequestInvalid that names every missing field and every field that does not fit.
        """
        fields = dict(request)
        missing: list[str] = []
        problems: list[str] = []
        for field in self._signature.inputs:
            if field.name in fields:
                problems += self._problems(field, fields[field.name])
            elif field.has_default:
                fields[field.name] = deepcopy(field.default)
            elif field.required and field.name not in ("trace_id", "event_time"):
                missing.append(field.name)
        problems += _built_in_problems(fields)
        if missing:
            names = ", ".join(f"'{name}'" for name in missing)
            problems.insert(0, f"the request lacks the required field{'s' if len(missing) > 1 else ''} {names}")
        if problems:
            raise RequestInvalid("; ".join(problems), missing=tuple(missing))
        fields.setdefault("trace_id", trace_id)
        fields.setdefault("event_time", event_time)
        return fields

    def _problems(self, field: FlowField, value: Any) -> list[str]:
        problem = misfit(value, field.type, self._schemas.get(field.name))
        return [f"field '{field.name}': {problem}"] if problem else []


def _built_in_problems(fields: Mapping[str, Any]) -> list[str]:
    """What is wrong with a caller's own `trace_id` and `event_time`."""
    problems: list[str] = []
    trace_id = fields.get("trace_id", "none")
    if not isinstance(trace_id, str) or not TRACE_ID.fullmatch(trace_id):
        problems.append("field 'trace_id': must be 1 to 128 letters, digits, dots, dashes or underscores")
    event_time = fields.get("event_time", "2026-01-01")
    try:
        datetime.fromisoformat(event_time)
    except (TypeError, ValueError):
        problems.append("field 'event_time': must be a time in ISO 8601, such as 2026-01-31T12:00:00+00:00")
    return problems
