"""io.format_response: a nested value with its placeholders filled."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from flow_runtime.operations.base import OperationCall, OperationFactory, with_resolved_args


async def format_response(args: Mapping[str, Any], call: OperationCall) -> Any:
    """The template. A placeholder that is a whole text keeps its value's type, one in a text is printed."""
    return args["template"]


FACTORIES: Mapping[str, OperationFactory] = MappingProxyType(
    {"io.format_response": with_resolved_args(format_response)}
)
