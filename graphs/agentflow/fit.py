"""Whether a value fits what is said about it: first its port type, then its JSON Schema."""

from __future__ import annotations

from typing import Any

from agentflow.schemas import Schema
from agentflow.types import PortType, mismatch


def misfit(value: Any, port_type: PortType | None, schema: Schema | None) -> str | None:
    """The first problem in a few words, None for a value that fits; None as type or schema asks nothing."""
    problem = None if port_type is None else mismatch(value, port_type)
    return problem if problem or schema is None else schema.check(value)
