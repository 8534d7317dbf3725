"""Operators: named pieces of work that can be joined. Agents and functions become one."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import wraps
from typing import Any

from pydantic import BaseModel

from agent_runtime.errors import OrchestrationError
from agent_runtime.orchestration.context import OperatorContext, current, enter, leave
from agent_runtime.orchestration.governed import BoundAgent
from agent_runtime.orchestration.results import OperatorResult, reading
from llm_client.agent.core import Agent

Execute = Callable[[Any, Any, OperatorContext], Awaitable[OperatorResult]]
Function = Callable[[dict[str, Any], OperatorContext], Awaitable[Any]]


class Operator(ABC):
    """A named piece of work (source: agent-runtime, Operator Pattern).

    A subclass gives `name` and `execute`. It may keep an agent, and ask it as `self.agent.run(prompt)`: inside
    `execute` that call has the identity, the budget and the cancellation of the operator's context.
    """

    _agent: Agent | None = None

    def __init__(self, agent: Agent | None = None) -> None:
        self._agent = agent

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = cls.__dict__.get("execute")
        if own is not None and not getattr(own, "__isabstractmethod__", False):
            setattr(cls, "execute", _in_its_context(own))  # noqa: B010

    @property
    @abstractmethod
    def name(self) -> str: ...

    @abstractmethod
    async def execute(self, input_data: dict[str, Any], context: OperatorContext) -> OperatorResult:
        """The result. What goes wrong may be raised, or returned as a result without success."""
        ...

    @property
    def agent(self) -> BoundAgent:
        """The operator's agent, on behalf of the run. Raises OrchestrationError where there is none."""
        if self._agent is None:
            raise OrchestrationError(
                f"The operator '{self.name}' has no agent: give it one as {type(self).__name__}(agent)."
            )
        return BoundAgent(self._agent, current() or OperatorContext())

    @agent.setter
    def agent(self, agent: Agent) -> None:
        self._agent = agent


def _in_its_context(execute: Execute) -> Execute:
    @wraps(execute)
    async def in_context(self: Any, input_data: Any, context: OperatorContext) -> OperatorResult:
        token = enter(context)
        try:
            return await execute(self, input_data, context)
        finally:
            leave(token)

    return in_context


class AgentOperator(Operator):
    """An agent as an operator. `prompt` makes its prompt of the input; left out, it is told the input's `text`.

    An agent with an output schema answers with the checked value; if that is an object, its fields are the `data`.
    """

    def __init__(
        self, agent: Agent, *, name: str = "agent", prompt: Callable[[Mapping[str, Any]], str] = reading
    ) -> None:
        super().__init__(agent)
        self._name = name
        self._prompt = prompt

    @property
    def name(self) -> str:
        return self._name

    async def execute(self, input_data: dict[str, Any], context: OperatorContext) -> OperatorResult:
        answer = await self.agent.run(self._prompt(input_data))
        if answer.output is None:
            return OperatorResult(content=answer.content)
        output = answer.output.model_dump(mode="json") if isinstance(answer.output, BaseModel) else answer.output
        return OperatorResult(content=output, data=output if isinstance(output, dict) else {})


class FunctionOperator(Operator):
    """An async function of an input and a context as an operator. What is no OperatorResult is its content."""

    def __init__(self, function: Function, *, name: str | None = None) -> None:
        super().__init__()
        self._function = function
        self._name = name or getattr(function, "__name__", "function")

    @property
    def name(self) -> str:
        return self._name

    async def execute(self, input_data: dict[str, Any], context: OperatorContext) -> OperatorResult:
        made = await self._function(input_data, context)
        return made if isinstance(made, OperatorResult) else OperatorResult(content=made)


Runnable = Operator | Agent | Function


def as_operator(item: Runnable, name: str | None = None) -> Operator:
    """An agent or an async function as an operator called `name`; an operator as it is. Raises OrchestrationError."""
    if isinstance(item, Operator):
        return item
    if isinstance(item, Agent):
        return AgentOperator(item, name=name or "agent")
    if inspect.iscoroutinefunction(item):
        return FunctionOperator(item, name=name)
    raise OrchestrationError(f"{item!r} is no operator, no agent and no async function.")


def named(items: Iterable[Runnable], name: str) -> dict[str, Operator]:
    """Operators by name, in their order. Agents are called `name-1`, `name-2`, and so is a name that comes up again.

    Raises OrchestrationError.
    """
    found: dict[str, Operator] = {}
    for position, item in enumerate(items, start=1):
        operator = as_operator(item, f"{name}-{position}" if isinstance(item, Agent) else None)
        key = operator.name if operator.name not in found else f"{operator.name}-{position}"
        if key in found:
            raise OrchestrationError(f"Two operators are named '{key}': give one of them another name.")
        found[key] = operator
    if not found:
        raise OrchestrationError("An operator that runs others needs at least one.")
    return found
