"""What is asked of a model, and on whose behalf."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from runtime_core.context import CallerId, ExecutionContext, ScopeId, TraceId
from runtime_core.frozen import unchecked
from runtime_core.ids import RandomIds, new_trace_id


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RequestSpec(_Frozen):
    """One request, independent of who serves it.

    `messages` are in OpenAI's chat form. `role` is an llmhub role; None is the engine's own provider. `params`
    go to any-llm (temperature, max_tokens, response_format, ...), `tools` are OpenAI function tools.
    """

    messages: tuple[dict[str, JsonValue], ...]
    role: str | None = None
    params: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    tools: tuple[dict[str, JsonValue], ...] = ()
    tool_choice: JsonValue = None

    @classmethod
    def of(cls, prompt: str, *, system: str | None = None, role: str | None = None, **params: JsonValue) -> Self:
        """A request with one user message."""
        messages: list[dict[str, JsonValue]] = [{"role": "user", "content": prompt}]
        if system:
            messages.insert(0, {"role": "system", "content": system})
        return cls(messages=tuple(messages), role=role, params=params)


class EmbeddingSpec(_Frozen):
    """Texts to embed."""

    inputs: Annotated[tuple[str, ...], Field(min_length=1)]
    role: str | None = None
    params: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])


class RequestContext(_Frozen):
    """On whose behalf a call is made (source: agent-runtime, RequestContext extensions).

    `tenant_id` is the scope: the wall between tenants for the log, the cache and idempotency. `node` is the
    flow node that asks, `run_id` its run. `deadline` is in seconds since the epoch.
    """

    request_id: str = Field(default_factory=lambda: RandomIds().new("req"))
    trace_id: TraceId = Field(default_factory=new_trace_id)
    tenant_id: ScopeId = "default"
    user_id: CallerId = "anonymous"
    session_id: str | None = None
    job_id: str | None = None
    run_id: str | None = None
    node: str | None = None
    parent_id: str | None = None
    deadline: float | None = None

    @classmethod
    def of_run(cls, run: ExecutionContext, *, node: str | None, request_id: str | None = None) -> Self:
        """For the calls of a run, whose values were all checked when it began."""
        return unchecked(
            cls,
            request_id=RandomIds().new("req") if request_id is None else request_id,
            trace_id=run.trace_id,
            tenant_id=run.scope_id,
            user_id=run.principal_id,
            session_id=run.session_id,
            job_id=run.job_id,
            run_id=run.run_id,
            node=node,
            parent_id=run.parent,
            deadline=None if run.deadline is None else run.deadline.timestamp(),
        )

    def child(self) -> Self:
        """A nested operation: a request id of its own, this one as its parent, everything else the same."""
        return self.model_copy(update={"request_id": RandomIds().new("req"), "parent_id": self.request_id})

    def with_job(self, job_id: str) -> Self:
        return type(self).model_validate({**dict(self), "job_id": job_id})

    def with_session(self, session_id: str) -> Self:
        return type(self).model_validate({**dict(self), "session_id": session_id})

    def to_dict(self) -> dict[str, Any]:
        """JSON values only; `from_dict` reads it back."""
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Raises pydantic's ValidationError."""
        return cls.model_validate(dict(data))
