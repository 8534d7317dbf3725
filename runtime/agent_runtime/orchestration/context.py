"""What an operator is told about the run that it is part of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from pydantic import JsonValue

from agent_runtime.events.types import RuntimeEventType
from agent_runtime.orchestration.budgets import NO_LIMITS, Meter
from agent_runtime.orchestration.config import OrchestrationConfig
from llm_client.cancellation import CancellationToken
from llm_client.providers.protocol import Target
from llm_client.spec import RequestContext, RequestSpec
from runtime_core.clock import Clock, SystemClock
from runtime_core.context import BudgetSpec, ExecutionContext
from runtime_core.ids import IdSource, RandomIds


@dataclass(frozen=True, slots=True)
class OperatorEvent:
    """What an operator, or a model or tool that it called, began or came to.

    `path` are the names from the first operator down to this one. `facts` are names, counts and codes; only those of
    MODEL_DELTA hold what was said.
    """

    type: RuntimeEventType
    path: tuple[str, ...]
    facts: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])


Observe = Callable[[OperatorEvent], Awaitable[None]]


class Overseer(Protocol):
    """Who may say no to what operators do."""

    async def admit_model(self, spec: RequestSpec, target: Target | None, execution: ExecutionContext) -> int | None:
        """Before every model call; the most tokens that it may answer with. Raises CallRefused, or one of its kinds.

        `target` is the model behind the role, where the engine says it.
        """
        ...

    async def admit_tool(self, name: str, arguments: Mapping[str, Any], execution: ExecutionContext) -> None:
        """Before every tool call. Raises CallRefused, or one of its kinds; the model is told its sentence."""
        ...


@dataclass(frozen=True, slots=True)
class OperatorContext:
    """Who asks, with which limits, and who may call it off (source: agent-runtime, Operator Pattern).

    Make one for a run of your own; operators that run others derive the rest. `meter` counts what the run takes,
    against `execution.budgets` unless it is given. `observe` hears of everything below; it holds nothing up.
    """

    execution: ExecutionContext = field(default_factory=ExecutionContext)
    config: OrchestrationConfig = field(default_factory=OrchestrationConfig)
    cancellation: CancellationToken = field(default_factory=CancellationToken)
    clock: Clock = field(default_factory=SystemClock)
    ids: IdSource = field(default_factory=RandomIds)
    observe: Observe | None = None
    overseer: Overseer | None = None
    path: tuple[str, ...] = ()
    meter: Meter = None  # pyright: ignore[reportAssignmentType]  # __post_init__ makes it

    def __post_init__(self) -> None:
        if self.meter is None:  # pyright: ignore[reportUnnecessaryComparison]
            object.__setattr__(self, "meter", Meter(self.execution.budgets, clock=self.clock))

    @property
    def scope_id(self) -> str:
        return self.execution.scope_id

    @property
    def job_id(self) -> str | None:
        return self.execution.job_id

    def child(self, name: str, *, budgets: BudgetSpec | None = None) -> OperatorContext:
        """For an operator that this one runs. Its budget is the rest of this one's, or less."""
        inherits = self.config.inherit_budgets
        meter = self.meter.child(budgets, inherits=inherits)
        rest = meter.rest()
        # every other value was checked when the run began
        execution = self.execution.model_copy(
            update={
                "run_id": self.ids.new("run"),
                "parent": self.execution.run_id,
                "budgets": None if rest is NO_LIMITS else rest,
            }
        )
        token = self.cancellation if self.config.propagate_cancellation else CancellationToken()
        return replace(self, execution=execution, cancellation=token, meter=meter, path=(*self.path, name))

    def remaining_s(self) -> float | None:
        """Seconds until the deadline, or until the budget's runtime is over; None without either."""
        until_deadline = None if self.execution.deadline is None else self.execution.remaining_s(self.clock.now())
        until_spent = self.meter.rest().max_runtime_seconds
        if until_deadline is None or until_spent is None:
            return until_spent if until_deadline is None else until_deadline
        return min(until_deadline, until_spent)

    async def tell(self, type: RuntimeEventType, **facts: JsonValue) -> None:
        """Tell whoever watches."""
        if self.observe is not None:
            await self.observe(OperatorEvent(type, self.path, facts))

    def request_context(self) -> RequestContext:
        """What the model calls of this operator carry."""
        run = self.execution
        # Every value was checked when the run began.
        return RequestContext.model_construct(
            request_id=run.run_id,
            trace_id=run.trace_id,
            tenant_id=run.scope_id,
            user_id=run.principal_id,
            session_id=run.session_id,
            job_id=run.job_id,
            run_id=run.run_id,
            node=self.path[-1] if self.path else None,
            parent_id=run.parent,
            deadline=None if run.deadline is None else run.deadline.timestamp(),
        )


# An operator's `self.agent.run(...)` is given no context, and must still be the call of the tenant that asked.
_current: ContextVar[OperatorContext | None] = ContextVar("agent_runtime_operator", default=None)


def current() -> OperatorContext | None:
    """The context of the operator that is running."""
    return _current.get()


@contextmanager
def within(context: OperatorContext) -> Iterator[None]:
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)
