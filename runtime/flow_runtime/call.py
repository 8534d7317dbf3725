"""What a node is told about the run it belongs to. It crosses process borders with every call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtime_core.context import ExecutionContext


@dataclass(frozen=True, slots=True)
class NodeCall:
    """`fields` are the prepared request with `trace_id` and `event_time`: what nodes see as `context`.

    They are data from a caller. Who the caller is stands in `context` alone.
    """

    context: ExecutionContext
    fields: Mapping[str, Any]
