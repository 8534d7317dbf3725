"""A run's answer held against the outputs that the flow declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from agentflow.fit import misfit
from agentflow.ir import Flow
from agentflow.schemas import Schema, compile_schema


class AnswerCheck:
    """Checks answers of one flow; its schemas are compiled once. A flow without `outputs` promises nothing."""

    def __init__(self, flow: Flow) -> None:
        self._outputs = flow.outputs
        self._schemas: dict[str, Schema] = {
            name: compile_schema(output.json_schema) for name, output in flow.outputs.items() if output.json_schema
        }

    def problem(self, answer: Any) -> str | None:
        """What is wrong with an answer, None for one that fits. An output that no edge fed may be missing."""
        if not self._outputs:
            return None
        if not isinstance(answer, Mapping):
            return f"the flow declares the outputs {', '.join(self._outputs)}, but the answer is no object"
        values = cast("Mapping[str, Any]", answer)
        for name, output in self._outputs.items():
            if (value := values.get(name)) is None:
                continue
            if problem := misfit(value, output.type, self._schemas.get(name)):
                return f"output '{name}': {problem}"
        return None
