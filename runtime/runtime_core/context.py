"""Who is asking, in which run, until when and with which limits: the one context that crosses every layer.

A context is small, immutable and made of JSON values, because it travels with each call between processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

from runtime_core.frozen import changed
from runtime_core.ids import RandomIds, check_id, check_name, check_scope_id, check_trace_id, new_trace_id

ScopeId = Annotated[str, AfterValidator(check_scope_id)]
CallerId = Annotated[str, AfterValidator(check_id)]
Name = Annotated[str, AfterValidator(check_name)]
TraceId = Annotated[str, AfterValidator(check_trace_id)]
Limit = TypeVar("Limit", int, float, Decimal, datetime)

UtcTime = Annotated[AwareDatetime, AfterValidator(lambda moment: moment.astimezone(UTC))]


class Identity(BaseModel):
    """Who is asking: the scope is the wall between tenants, the principal one actor within it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scope_id: ScopeId = "default"
    principal_id: CallerId = "anonymous"


_MOST = 2**53
"""What a ledger can count: tokens, millionths of a dollar, milliseconds."""
_Whole = Annotated[int, Field(ge=0, le=_MOST)]


class BudgetSpec(BaseModel):
    """Limits of one run; None is no limit. `max_cost` is in dollars (source: agent-runtime, BudgetSpec)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_tokens: _Whole | None = None
    max_cost: Annotated[Decimal, Field(ge=0, le=_MOST // 10**6, allow_inf_nan=False)] | None = None
    max_tool_calls: _Whole | None = None
    max_turns: _Whole | None = None
    max_runtime_seconds: Annotated[float, Field(ge=0, le=_MOST // 1000, allow_inf_nan=False)] | None = None

    def within(self, other: BudgetSpec | None) -> BudgetSpec:
        """The tighter of both, limit by limit."""
        if other is None:
            return self
        return BudgetSpec(
            max_tokens=_tighter(self.max_tokens, other.max_tokens),
            max_cost=_tighter(self.max_cost, other.max_cost),
            max_tool_calls=_tighter(self.max_tool_calls, other.max_tool_calls),
            max_turns=_tighter(self.max_turns, other.max_turns),
            max_runtime_seconds=_tighter(self.max_runtime_seconds, other.max_runtime_seconds),
        )


class PolicyRef(BaseModel):
    """Which policy applies, by name; None as version is the newest one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    version: Name | None = None


class RunVersions(BaseModel):
    """What a run was made with, for whoever compares or replays runs; None where nobody said."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime_version: str | None = None
    model_version: str | None = None
    prompt_version: str | None = None
    policy_version: str | None = None
    flow_version: str | None = None


class ExecutionContext(Identity):
    """One run's context. `parent` is the run that started this one; `deadline` is the caller's, in UTC."""

    session_id: CallerId | None = None
    run_id: CallerId = Field(default_factory=lambda: RandomIds().new("run"))
    job_id: CallerId | None = None
    trace_id: TraceId = Field(default_factory=new_trace_id)
    parent: CallerId | None = None
    deadline: UtcTime | None = None
    budgets: BudgetSpec | None = None
    policy_ref: PolicyRef | None = None
    versions: RunVersions | None = None
    metadata: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])

    def child(
        self,
        *,
        run_id: str | None = None,
        deadline: datetime | None = None,
        budgets: BudgetSpec | None = None,
    ) -> Self:
        """A run started by this one: same identity, session, job and trace, never looser limits."""
        return self._with(
            run_id=run_id if run_id is not None else RandomIds().new("run"),
            parent=self.run_id,
            deadline=_tighter(self.deadline, deadline),
            budgets=budgets.within(self.budgets) if budgets is not None else self.budgets,
        )

    def with_job(self, job_id: str) -> Self:
        """The same run as part of a job."""
        return self._with(job_id=job_id)

    def with_session(self, session_id: str) -> Self:
        """The same run as part of a session."""
        return self._with(session_id=session_id)

    def remaining_s(self, now: datetime) -> float | None:
        """Seconds until the deadline, 0.0 when it has passed, None without one."""
        return None if self.deadline is None else max(0.0, (self.deadline - now).total_seconds())

    def to_dict(self) -> dict[str, Any]:
        """JSON values only; `from_dict` reads it back."""
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The context that `to_dict` wrote; raises pydantic's ValidationError on anything else."""
        return cls.model_validate(dict(data))

    def to_request_context(self) -> dict[str, str | None]:
        """The fields that a model call sees, under the names that llm_client gives them."""
        return {
            "request_id": self.run_id,
            "trace_id": self.trace_id,
            "tenant_id": self.scope_id,
            "user_id": self.principal_id,
            "session_id": self.session_id,
            "job_id": self.job_id,
        }

    def _with(self, **changes: object) -> Self:
        # model_copy(update=) would not validate the changes
        return type(self).model_validate({**dict(self), **changes})


_BLANK = ExecutionContext(run_id="run", trace_id="trace")


def context_of_run(
    identity: Identity,
    *,
    run_id: str,
    trace_id: str,
    session_id: str | None = None,
    deadline: datetime | None = None,
    budgets: BudgetSpec | None = None,
) -> ExecutionContext:
    """The context of a new run, of values that were checked where they came in; they are not checked again."""
    return changed(
        _BLANK,
        scope_id=identity.scope_id,
        principal_id=identity.principal_id,
        run_id=run_id,
        trace_id=trace_id,
        session_id=session_id,
        deadline=deadline,
        budgets=budgets,
        metadata={},
    )


def _tighter(mine: Limit | None, other: Limit | None) -> Limit | None:
    if mine is None:
        return other
    return mine if other is None else min(mine, other)
