"""What is asked of the kernel, and what it gives back."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic_core import to_jsonable_python

from agent_runtime.jobs.records import IdempotencyKey
from runtime_core.context import BudgetSpec, CallerId, PolicyRef, RunVersions, ScopeId, TraceId, UtcTime


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ExecutionRequest(_Frozen):
    """One thing to be done (source: agent-runtime, RuntimeKernel).

    An agent answers the `prompt`; with an `operator_id` that operator is given `input`, and the prompt as `text`. A
    second request with the `idempotency_key` of a first one, in the same scope, is that first one. `timeout_seconds`
    and `deadline` bound it, whichever ends first, and so does the runtime of its `budgets`. `parent_job_id` is a job
    of the same scope that this one is part of. With `stream` the answer's text is among the events as it comes.
    `policy_ref` selects one of the kernel's `policy_documents`, which then counts beside its other rules.
    """

    prompt: str = ""
    input: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    operator_id: str | None = None
    scope_id: ScopeId = "default"
    principal_id: CallerId = "anonymous"
    session_id: CallerId | None = None
    trace_id: TraceId | None = None
    parent_job_id: CallerId | None = None
    idempotency_key: IdempotencyKey | None = None
    budgets: BudgetSpec | None = None
    policy_ref: PolicyRef | None = None
    versions: RunVersions | None = None
    deadline: UtcTime | None = None
    timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    stream: bool = False
    metadata: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    tags: tuple[str, ...] = ()

    def request_hash(self) -> str:
        """Tells another request apart from a repeated one: what is asked and for whom, not how long one would wait."""
        asked = {"prompt", "input", "operator_id", "principal_id", "session_id", "parent_job_id"}
        return hashlib.sha256(self.model_dump_json(include=asked).encode()).hexdigest()


class ExecutionResult(_Frozen):
    """What came of a request that succeeded; the handle of any other raises.

    `content` is the answer, `output` the checked value of a schema, `data` the fields that an operator added. The
    counts are those of all model and tool calls below it; `cost_micro` is in millionths of a dollar, over the calls
    whose price is known; `unpriced` counts the others.
    """

    job_id: str
    content: JsonValue = None
    output: JsonValue = None
    data: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    model_calls: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_micro: int = 0
    unpriced: int = 0


def as_json(value: Any) -> JsonValue:
    """A value as it can be stored; what is no JSON becomes text."""
    return to_jsonable_python(value, fallback=str, inf_nan_mode="strings")
