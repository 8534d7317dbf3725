"""A request that fits a flow, for the curl lines that commands and docs show."""

from __future__ import annotations

from typing import Any

from agentflow.signature import FlowField, Signature
from agentflow.types import PortType
from agentflow.wiring import BUILT_IN_FIELDS

_BY_TYPE: dict[str, Any] = {
    PortType.NUMBER: 1,
    "integer": 1,
    PortType.BOOLEAN: True,
    PortType.OBJECT: {},
    PortType.ARRAY: [],
    PortType.TABLE: [],
    PortType.EMBEDDING: [0.0],
}


def sample_request(signature: Signature) -> dict[str, Any]:
    """One value for each required field: its schema's first `examples`, `const` or `enum`, else one of its type."""
    fields = (field for field in signature.inputs if field.required and field.name not in BUILT_IN_FIELDS)
    return {field.name: _sample(field) for field in fields}


def _sample(field: FlowField) -> Any:
    schema = field.schema or {}
    for key in ("examples", "enum"):
        values = schema.get(key)
        if isinstance(values, list) and values:
            return values[0]  # pyright: ignore[reportUnknownVariableType]
    if "const" in schema:
        return schema["const"]
    kind = field.type or schema.get("type")
    text = f"some {field.name}"
    return _BY_TYPE.get(kind, text) if isinstance(kind, str) else text
