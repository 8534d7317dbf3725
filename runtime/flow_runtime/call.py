"""What a node is told about the run it belongs to. It crosses process borders with every call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from runtime_core.context import ExecutionContext
from runtime_core.outcome import NodeOutcome
from runtime_core.sessions.records import SessionRecord


@dataclass(frozen=True, slots=True)
class OnExceed:
    """What a node does about a model call that no longer fits a budget; `degrade` makes it with `degrade_role`."""

    then: Literal["stop", "degrade", "ask"] = "stop"
    degrade_role: str | None = None


@dataclass(frozen=True, slots=True)
class NodeCall:
    """`fields` are the prepared request with `trace_id` and `event_time`: what nodes see as `context`.

    They are data from a caller. Who the caller is stands in `context` alone. `memory` holds the records that precede
    the node's prompt; where it is None, nobody remembers and the node need not tell its turns. `on_exceed` is there
    where the run has a budget.
    """

    context: ExecutionContext
    fields: Mapping[str, Any]
    memory: tuple[SessionRecord, ...] | None = None
    on_exceed: OnExceed | None = None


Run = Callable[[Mapping[str, Any], NodeCall], Awaitable[NodeOutcome]]
"""A node's work on its inputs, or one layer of it. Failures are values."""
