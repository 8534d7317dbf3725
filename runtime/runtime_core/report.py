"""What a finished run says about itself: its output or its error, and what became of each node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agentflow.failure import Refused
from runtime_core.sessions.records import SessionRecord

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
    "session_full",  # the session has no room for what was said; begin a new one
    "rate_limited",  # a model's provider refused for now; try again
    "budget_exceeded",  # a budget has no room for what the run would use
    "policy_denied",  # a rule does not allow what the run would do
    "overloaded",  # a queue is full; try again
    "unavailable",  # a part that the run needs does not answer; try again
]


@dataclass(frozen=True, slots=True)
class ModelUse:
    """What model calls took. `calls` counts the requests that a provider worked on, or may have worked on.

    `cost_micro` is in millionths of a dollar, over the calls whose price is known; `unpriced` counts the others,
    `estimated` those whose tokens the provider did not count.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_micro: int = 0
    unpriced: int = 0
    estimated: int = 0

    def __add__(self, other: ModelUse) -> ModelUse:
        return ModelUse(
            calls=self.calls + other.calls,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cost_micro=self.cost_micro + other.cost_micro,
            unpriced=self.unpriced + other.unpriced,
            estimated=self.estimated + other.estimated,
        )


NO_USE = ModelUse()


@dataclass(frozen=True, slots=True)
class RunError:
    """Why a run has no output. `message` is one sentence for a person; `retry_after` is in seconds.

    `refused` says more of `budget_exceeded` and `policy_denied`.
    """

    code: ErrorCode
    message: str
    node: str | None = None
    retry_after: float | None = None
    refused: Refused | None = None


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One node's part of a run. Times are seconds since the run started; None where it did not run."""

    status: NodeStatus
    attempts: int = 0
    started_s: float | None = None
    finished_s: float | None = None
    error: Mapping[str, Any] | None = None
    use: ModelUse = NO_USE


@dataclass(frozen=True, slots=True)
class RunReport:
    """`output` counts only when `error` is None. Nodes that no answer needed are left out of `nodes`.

    So are nodes that ran as tools of a prompt; their `use` is part of that of the node that asked. `records` are the
    turns that the run leaves to its session.
    """

    run_id: str
    trace_id: str
    output: Any = None
    error: RunError | None = None
    nodes: Mapping[str, NodeReport] = field(default_factory=dict[str, NodeReport])
    use: ModelUse = NO_USE
    records: tuple[SessionRecord, ...] = ()
