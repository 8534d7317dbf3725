"""agent.*: agents over roles, joined by the patterns of agent_runtime. The value is what they answer."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from agent_runtime.errors import AgentRuntimeError, BudgetExceededError, PolicyDenied
from agent_runtime.orchestration.chain import ChainOperator
from agent_runtime.orchestration.config import OrchestrationConfig
from agent_runtime.orchestration.context import OperatorContext
from agent_runtime.orchestration.debate import DebateOperator
from agent_runtime.orchestration.map_reduce import ITEMS, MapReduceOperator
from agent_runtime.orchestration.operators import AgentOperator, Operator
from agent_runtime.orchestration.parallel import OnError, ParallelOperator
from agent_runtime.orchestration.plan_execute import PlannerExecutorOperator
from agent_runtime.orchestration.results import TEXT, OperatorResult, text_of
from agentflow.agent_use import AGENT_ARGS, LISTS
from agentflow.placeholders import compile_args
from flow_runtime.errors import FlowRuntimeError, ModelFailed, OperationFailed, OperationTimeout
from flow_runtime.models_engine import ModelsEngine
from flow_runtime.operations.base import OperationBinding, OperationCall, OperationFactory
from flow_runtime.refusals import not_allowed
from llm_client.agent.core import Agent
from runtime_core.context import BudgetSpec, ExecutionContext

DEFAULT_TURNS = 8
_AGENTS = {argument for arguments in AGENT_ARGS.values() for argument in arguments} - LISTS


class AgentSpec(BaseModel):
    """An agent as a flow writes it; `role: writer` may be written as `writer`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str
    name: str | None = None
    system: str | None = None
    tools: tuple[str, ...] = ()
    max_turns: int = DEFAULT_TURNS
    temperature: float | None = None
    max_tokens: int | None = None


class AgentArgs(BaseModel):
    """The arguments of all agent.* operations with their placeholders filled; each takes those that it knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Any
    limits: OrchestrationConfig = OrchestrationConfig()
    budgets: BudgetSpec | None = None
    agent: AgentSpec | None = None
    agents: tuple[AgentSpec, ...] = ()
    map: AgentSpec | None = None
    reduce: AgentSpec | None = None
    planner: AgentSpec | None = None
    executor: AgentSpec | None = None
    synthesizer: AgentSpec | None = None
    debaters: tuple[AgentSpec, ...] = ()
    moderator: AgentSpec | None = None
    max_rounds: int = 3
    parallel: bool = False
    on_error: OnError = "fail"


class RunAgents:
    """One agent.* operation.

    An `input` that is text is what the first agents are told, an object is told field by field, and an array is the
    items of map_reduce. Raises ModelFailed where there are no models, CodeRefused or ToolUnknown for a tool.
    """

    def __init__(self, binding: OperationBinding) -> None:
        if binding.models is None:
            raise ModelFailed(f"{binding.op} runs agents: name an llmhub.yaml that says which models their roles are")
        self._binding = binding
        self._engine = ModelsEngine(binding.models, None)
        self._args = compile_args(_written_out(dict(binding.args)), binding.names)
        self._tools = {} if binding.tools is None else binding.tools.all()

    async def run(self, values: Mapping[str, Any], call: OperationCall) -> Any:
        """Raises OperationFailed, OperationTimeout, and what the models raise."""
        op, resources = self._binding.op, self._binding.resources
        try:
            args = AgentArgs.model_validate(self._args.resolve(values))
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise OperationFailed(f"the arguments of {op} are wrong at {where}: {first['msg']}", op=op) from exc
        execution = call.run or ExecutionContext()
        context = OperatorContext(
            # the run's own budget is kept by the ledger, call by call
            execution=execution.model_copy(update={"budgets": args.budgets}),
            config=args.limits,
            clock=resources.clock,
            ids=resources.ids,
        )
        try:
            done = await self._operator(args).execute(_given(args.input), context)
        except AgentRuntimeError as exc:
            raise OperationFailed(f"{op} failed: {exc}", op=op) from exc
        return self._answer(done)

    def _answer(self, done: OperatorResult) -> Any:
        op = self._binding.op
        if done.success:
            return done.content
        if isinstance(done.cause, FlowRuntimeError):  # a model's failure, with what it says about trying again
            raise done.cause
        if isinstance(done.cause, BudgetExceededError | PolicyDenied):
            raise not_allowed(done.cause) from done.cause
        if done.code == "timeout":
            raise OperationTimeout(f"{op} failed: {done.error}", op=op)
        raise OperationFailed(f"{op} failed: {done.error}", op=op) from done.cause

    def _operator(self, args: AgentArgs) -> Operator:
        match self._binding.op:
            case "agent.run":
                return ChainOperator([self._agent(args.agent, "agent")])
            case "agent.chain":
                return ChainOperator(self._agents(args.agents, "agent"))
            case "agent.parallel":
                return ParallelOperator(self._agents(args.agents, "agent"), on_error=args.on_error)
            case "agent.map_reduce":
                mapping, reducing = self._agent(args.map, "map"), self._agent(args.reduce, "reduce")
                return MapReduceOperator(map_operator=mapping, reduce_operator=reducing, on_error=args.on_error)
            case "agent.plan_execute":
                return PlannerExecutorOperator(
                    planner=self._agent(args.planner, "planner"),
                    executor=self._agent(args.executor, "executor"),
                    synthesizer=None if args.synthesizer is None else self._agent(args.synthesizer, "synthesizer"),
                    parallel=args.parallel,
                )
            case _:
                return DebateOperator(
                    debaters=self._agents(args.debaters, "debater"),
                    moderator=None if args.moderator is None else self._agent(args.moderator, "moderator"),
                    max_rounds=args.max_rounds,
                )

    def _agents(self, specs: tuple[AgentSpec, ...], name: str) -> list[AgentOperator]:
        return [self._agent(spec, f"{name}-{number}") for number, spec in enumerate(specs, start=1)]

    def _agent(self, spec: AgentSpec | None, name: str) -> AgentOperator:
        assert spec is not None, "the checks of the flow found it"
        params = {"temperature": spec.temperature, "max_tokens": spec.max_tokens}
        tools = self._binding.tools
        agent = Agent(
            engine=self._engine,
            role=spec.role,
            system=spec.system,
            tools=[self._tools[tool] for tool in spec.tools],
            middleware=tools.around() if tools is not None else (),
            max_turns=spec.max_turns,
            params={key: value for key, value in params.items() if value is not None},
            clock=self._binding.resources.clock,
        )
        return AgentOperator(agent, name=spec.name or name)


def _written_out(args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with every agent as a mapping."""
    found: dict[str, Any] = {}
    for name, value in args.items():
        if name in LISTS and isinstance(value, list):
            found[name] = [{"role": entry} if isinstance(entry, str) else entry for entry in value]
        elif name in _AGENTS:
            found[name] = {"role": value} if isinstance(value, str) else value
        else:
            found[name] = value
    return found


def _given(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list):
        return {ITEMS: value, TEXT: text_of(value)}
    return {TEXT: text_of(value)}


FACTORIES: Mapping[str, OperationFactory] = MappingProxyType(dict.fromkeys(AGENT_ARGS, RunAgents))
