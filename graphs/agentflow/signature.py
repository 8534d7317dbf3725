"""What a flow takes and gives: the request fields and outputs that its callers see.

Derived from the flow file (`context`, `inputs`, `outputs`, the `_output` edges); the predictor makes the
V2 metadata and the tensor names from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agentflow.types import PortType


@dataclass(frozen=True, slots=True)
class FlowField:
    """One request field or one output.

    `type` is None where the flow does not say (fields listed in `context` only). `default` counts only
    when `has_default`; a field with a default is not `required`.
    """

    name: str
    type: PortType | None = None
    schema: dict[str, Any] | None = None
    required: bool = True
    has_default: bool = False
    default: Any = None


@dataclass(frozen=True, slots=True)
class Signature:
    """`outputs` is empty when the flow's answer has no declared or inferable parts: it is then one JSON value."""

    inputs: tuple[FlowField, ...] = field(default=())
    outputs: tuple[FlowField, ...] = field(default=())
