"""What an operator is told about the run that it is part of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import JsonValue

from agent_runtime.events.types import RuntimeEventType
from agent_runtime.orchestration.budgets import NO_LIMITS, Meter
from agent_runtime.orchestration.config import OrchestrationConfig
from llm_client.agent.loop import ModelEngine
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


class Accounts(Protocol):
    """Where the calls of a run, and of everything in it, are counted: as those of the run `run_id`."""

    @property
    def run_id(self) -> str: ...

    def engine(self, engine: ModelEngine) -> ModelEngine:
        """The same engine, whose calls are counted here."""
        ...

    def tool_call(self, name: str, *, most_s: float) -> AbstractAsyncContextManager[None]:
        """Around one call of a tool. Raises CallRefused, or one of its kinds; the model is told its sentence."""
        ...


class OperatorContext:
    """Who asks, with which limits, and who may call it off (source: agent-runtime, Operator Pattern).

    Make one for a run of your own; operators that run others derive the rest. `meter` counts what the run takes,
    against `execution.budgets` unless it is given, and `accounts` count it in a ledger. `observe` hears of everything
    below; it holds nothing up. What is given is not changed afterwards. `covered` says that an operator above is struck
    when the token is cancelled.
    """

    # a graph makes one for every node: a frozen dataclass would take as long as all the rest
    __slots__ = (
        "_above",
        "_execution",
        "accounts",
        "cancellation",
        "clock",
        "config",
        "covered",
        "ids",
        "meter",
        "observe",
        "overseer",
        "path",
    )

    def __init__(
        self,
        *,
        execution: ExecutionContext | None = None,
        config: OrchestrationConfig | None = None,
        cancellation: CancellationToken | None = None,
        clock: Clock | None = None,
        ids: IdSource | None = None,
        observe: Observe | None = None,
        overseer: Overseer | None = None,
        meter: Meter | None = None,
        accounts: Accounts | None = None,
        path: tuple[str, ...] = (),
    ) -> None:
        self._above: OperatorContext | None = None
        self._execution: ExecutionContext | None = execution or ExecutionContext()
        self.config = config or OrchestrationConfig()
        self.cancellation = cancellation or CancellationToken()
        self.clock = clock or SystemClock()
        self.ids = ids or RandomIds()
        self.observe = observe
        self.overseer = overseer
        self.accounts = accounts
        self.path = path
        self.covered = False
        self.meter = meter or Meter(self._execution.budgets, clock=self.clock)

    @property
    def execution(self) -> ExecutionContext:
        """Identity, run, deadline and budgets; the run is one of its own, below that of the operator above."""
        if self._execution is None:
            assert self._above is not None
            above, rest = self._above.execution, self.meter.rest()
            # every other value was checked when the run began
            self._execution = above.model_copy(
                update={
                    "run_id": self.ids.new("run"),
                    "parent": above.run_id,
                    "budgets": None if rest is NO_LIMITS else rest,
                }
            )
        return self._execution

    @property
    def scope_id(self) -> str:
        return self.execution.scope_id

    @property
    def job_id(self) -> str | None:
        return self.execution.job_id

    def child(self, name: str, *, budgets: BudgetSpec | None = None) -> OperatorContext:
        """For an operator that this one runs. Its budget is the rest of this one's, or less."""
        config = self.config
        child = object.__new__(OperatorContext)
        child._above = self
        child._execution = None
        child.config = config
        child.cancellation = self.cancellation if config.propagate_cancellation else CancellationToken()
        child.clock = self.clock
        child.ids = self.ids
        child.observe = self.observe
        child.overseer = self.overseer
        child.accounts = self.accounts
        child.path = (*self.path, name)
        child.covered = True
        child.meter = self.meter.child(budgets, inherits=config.inherit_budgets)
        return child

    def remaining_s(self) -> float | None:
        """Seconds until the deadline, or until the budget's runtime is over; None without either."""
        run = (self._above or self).execution  # a deadline is that of the whole run
        until_deadline = None if run.deadline is None else run.remaining_s(self.clock.now())
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
        mine = RequestContext.of_run(run, node=self.path[-1] if self.path else None, request_id=run.run_id)
        return mine if self.accounts is None else mine.model_copy(update={"run_id": self.accounts.run_id})


# An operator's `self.agent.run(...)` is given no context, and must still be the call of the tenant that asked.
_current: ContextVar[OperatorContext | None] = ContextVar("agent_runtime_operator", default=None)


def current() -> OperatorContext | None:
    """The context of the operator that is running."""
    return _current.get()


def enter(context: OperatorContext) -> Token[OperatorContext | None]:
    """`context` is the current one until `leave`."""
    return _current.set(context)


def leave(token: Token[OperatorContext | None]) -> None:
    _current.reset(token)
