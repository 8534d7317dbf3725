"""What a finished run says about itself: its output or its error, and what became of each node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

NodeStatus = Literal["succeeded", "failed", "skipped", "cancelled"]

ErrorCode = Literal[
    "bad_input",  # the request does not fit the flow; the caller must change it
    "deadline_exceeded",  # the request's own deadline passed
    "cancelled",  # the caller left
    "node_failed",  # a node failed and nothing in the flow handles it
    "node_lost",  # the process that ran a node died and it may not run again
    "condition_failed",  # an edge's condition raised
    "no_output",  # every edge into _output was dead
    "bad_output",  # the answer does not fit the flow's declared outputs
    "rate_limited",  # a model's provider refused for now; try again
    "overloaded",  # a queue is full; try again
    "unavailable",  # a part that the run needs does not answer; try again
]


@dataclass(frozen=True, slots=True)
class RunError:
    """Why a run has no output. `message` is one sentence for a person; `retry_after` is in seconds."""

    code: ErrorCode
    message: str
    node: str | None = None
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One node's part of a run. Times are seconds since the run started; None where it did not run."""

    status: NodeStatus
    attempts: int = 0
    started_s: float | None = None
    finished_s: float | None = None
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RunReport:
    """`output` counts only when `error` is None. Nodes that no answer needed are left out of `nodes`."""

    run_id: str
    trace_id: str
    output: Any = None
    error: RunError | None = None
    nodes: Mapping[str, NodeReport] = field(default_factory=dict[str, NodeReport])
