"""An agent on behalf of a run: its identity, its budget, its cancellation and whoever oversees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from pydantic import JsonValue

from agent_runtime.events.types import RuntimeEventType
from agent_runtime.orchestration.context import OperatorContext
from llm_client.agent.core import Agent, Prompt
from llm_client.agent.events import AgentEvent
from llm_client.agent.loop import ModelEngine
from llm_client.agent.middleware.chain import Next, ToolInvocation
from llm_client.agent.results import AgentResult
from llm_client.cancellation import CancellationToken
from llm_client.events import StreamEnded, StreamEvent, StreamFailed, TextDelta
from llm_client.providers.protocol import Target
from llm_client.results import CompletionResult
from llm_client.spec import RequestContext, RequestSpec
from runtime_core.errors import AgentflowError


class BoundAgent:
    """An agent that runs as part of an operator. What a call leaves out is the operator's."""

    def __init__(self, agent: Agent, operator: OperatorContext) -> None:
        self._agent = agent.governed(lambda engine: GovernedEngine(engine, operator), (_GovernedTools(operator),))
        self._operator = operator

    async def run(
        self,
        prompt: Prompt,
        *,
        context: RequestContext | None = None,
        cancellation: CancellationToken | None = None,
        injected: Mapping[str, Any] | None = None,
    ) -> AgentResult:
        """Agent.run; also raises BudgetExceededError and what the overseer raises."""
        return await self._agent.run(
            prompt,
            context=context or self._operator.request_context(),
            cancellation=cancellation or self._operator.cancellation,
            injected=injected,
        )

    def stream(
        self,
        prompt: Prompt,
        *,
        context: RequestContext | None = None,
        cancellation: CancellationToken | None = None,
        injected: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[AgentEvent]:
        """Agent.stream; what a budget or the overseer refuses is the last event, StreamFailed."""
        return self._agent.stream(
            prompt,
            context=context or self._operator.request_context(),
            cancellation=cancellation or self._operator.cancellation,
            injected=injected,
        )


@runtime_checkable
class NamesModels(Protocol):
    """An engine that says which model a role is, such as ExecutionEngine."""

    def target(self, role: str | None = None) -> Target: ...


class GovernedEngine:
    """Counts every model call of a run, tells of it, and lets none pass that its budget or its overseer refuses."""

    def __init__(self, inner: ModelEngine, operator: OperatorContext) -> None:
        self._inner = inner if operator.accounts is None else operator.accounts.engine(inner)
        self._operator = operator

    async def complete(
        self,
        spec: RequestSpec,
        *,
        context: RequestContext | None = None,
        cancellation: CancellationToken | None = None,
    ) -> CompletionResult:
        async with self._watched(spec) as call:
            call.result = await self._inner.complete(call.spec, context=context, cancellation=cancellation)
        return call.result

    async def stream(
        self,
        spec: RequestSpec,
        *,
        context: RequestContext | None = None,
        cancellation: CancellationToken | None = None,
    ) -> AsyncGenerator[StreamEvent]:
        async with self._watched(spec) as call:
            stream = self._inner.stream(call.spec, context=context, cancellation=cancellation)
            async with aclosing(stream) as events:
                async for event in events:
                    if isinstance(event, StreamEnded):
                        call.result = event.result
                    elif isinstance(event, StreamFailed):
                        call.failure = event.code
                    elif isinstance(event, TextDelta):
                        await self._operator.tell(RuntimeEventType.MODEL_DELTA, text=event.text)
                    yield event

    @asynccontextmanager
    async def _watched(self, spec: RequestSpec) -> AsyncGenerator[_Call]:
        operator = self._operator
        call = _Call(await self._admitted(spec))
        await operator.tell(RuntimeEventType.MODEL_STARTED, role=spec.role)
        try:
            yield call
        except (AgentflowError, asyncio.CancelledError) as exc:
            call.failure = getattr(exc, "code", "cancelled")
            raise
        finally:
            if (result := call.result) is not None:
                operator.meter.heard(result)
            if result is None or call.failure is not None:
                await operator.tell(RuntimeEventType.MODEL_FAILED, role=spec.role, code=call.failure)
            else:
                await operator.tell(RuntimeEventType.MODEL_COMPLETED, **_facts(result))

    async def _admitted(self, spec: RequestSpec) -> RequestSpec:
        """The request with no more `max_tokens` than are allowed, and left. Raises CallRefused."""
        operator, most = self._operator, None
        operator.cancellation.raise_if_cancelled()
        if operator.overseer is not None:
            target = self._inner.target(spec.role) if isinstance(self._inner, NamesModels) else None
            most = await operator.overseer.admit_model(spec, target, operator.execution)
        operator.meter.begin_turn()
        left, wanted = operator.meter.rest().max_tokens, spec.params.get("max_tokens")
        if left is not None and isinstance(wanted, int):
            most = left if most is None else min(most, left)
        if most is None or (isinstance(wanted, int) and wanted <= most):
            return spec
        return spec.model_copy(update={"params": {**spec.params, "max_tokens": most}})


@dataclass(slots=True)
class _Call:
    spec: RequestSpec
    result: CompletionResult | None = None
    failure: str | None = None


def _facts(result: CompletionResult) -> dict[str, JsonValue]:
    return {
        "role": result.role,
        "model": result.model,
        "input_tokens": result.usage.input,
        "output_tokens": result.usage.output,
        "cost_micro": result.cost_micro,
        "cached": result.cached,
    }


class _GovernedTools:
    """The outermost link around an agent's tool calls."""

    def __init__(self, operator: OperatorContext) -> None:
        self._operator = operator

    async def __call__(self, call: ToolInvocation, next: Next) -> str:
        operator, name = self._operator, call.tool.name
        try:
            if operator.overseer is not None:
                await operator.overseer.admit_tool(name, call.arguments, operator.execution)
            operator.meter.begin_tool_call()
            async with self._counted(call):
                await operator.tell(RuntimeEventType.TOOL_STARTED, tool=name, call_id=call.call_id)
                text = await next(call)
        except AgentflowError as exc:
            code = getattr(exc, "code", "tool_failed")
            await operator.tell(RuntimeEventType.TOOL_FAILED, tool=name, call_id=call.call_id, code=code)
            raise
        await operator.tell(RuntimeEventType.TOOL_COMPLETED, tool=name, call_id=call.call_id)
        return text

    def _counted(self, call: ToolInvocation) -> AbstractAsyncContextManager[None]:
        accounts = self._operator.accounts
        return (
            nullcontext() if accounts is None else accounts.tool_call(call.tool.name, most_s=call.tool.timeout_s or 0)
        )
