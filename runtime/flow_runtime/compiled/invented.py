"""Values that nobody gave: what a model might answer, what a port might carry. The same every time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from agentflow.ir import ModelRef, Port
from agentflow.types import PortType
from flow_runtime.errors import ModelFailed
from flow_runtime.models import ModelAnswer, name_of
from flow_runtime.scripted_models import ScriptedModels
from llmhub_runtime.sim.errors import SimBadRequest
from llmhub_runtime.sim.schema_answers import schema_answer

_BY_TYPE: Mapping[PortType, Any] = {
    PortType.NUMBER: 1,
    PortType.BOOLEAN: True,
    PortType.OBJECT: {},
    PortType.ARRAY: ["some element"],
    PortType.TABLE: [{}],
    PortType.EMBEDDING: [0.5, 0.5],
}


def invented(ports: Sequence[Port]) -> dict[str, Any]:
    """A value for each port, which fits its schema where it has one."""
    return {port.name: _value(port) for port in ports}


def _value(port: Port) -> Any:
    if port.json_schema is not None:
        try:
            return schema_answer(port.json_schema, seed=port.name)
        except SimBadRequest:
            pass
    return _BY_TYPE.get(port.type, f"some {port.name}")


class InventiveModels:
    """Models that answer anything: what fits the schema that is asked for, else a sentence."""

    async def chat(
        self,
        model: str | ModelRef,
        messages: Sequence[Mapping[str, Any]],
        params: Mapping[str, Any],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> ModelAnswer:
        schema = params.get("response_format", {}).get("json_schema", {}).get("schema")
        if schema is None:
            return ModelAnswer(text=f"an answer of {name_of(model)}", finish_reason="stop")
        try:
            answer = schema_answer(schema, seed=name_of(model))
        except SimBadRequest as exc:
            raise ModelFailed(f"nothing fits the schema: {exc}") from exc
        return ModelAnswer(text=json.dumps(answer, ensure_ascii=False), finish_reason="stop")

    async def embed(self, role: str, texts: Sequence[str]) -> list[list[float]]:
        return await ScriptedModels({}).embed(role, texts)
