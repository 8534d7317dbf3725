"""An agent on behalf of a run: its identity, its budget, its cancellation and whoever oversees it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from agent_runtime.orchestration.context import OperatorContext
from llm_client.agent.core import Agent, Prompt
from llm_client.agent.events import AgentEvent
from llm_client.agent.loop import ModelEngine
from llm_client.agent.middleware.chain import Next, ToolInvocation
from llm_client.agent.results import AgentResult
from llm_client.cancellation import CancellationToken
from llm_client.events import StreamEnded, StreamEvent
from llm_client.results import CompletionResult
from llm_client.spec import RequestContext, RequestSpec


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


class GovernedEngine:
    """Counts every model call of a run, and lets none pass that its budget or its overseer refuses."""

    def __init__(self, inner: ModelEngine, operator: OperatorContext) -> None:
        self._inner = inner
        self._operator = operator

    async def complete(
        self,
        spec: RequestSpec,
        *,
        context: RequestContext | None = None,
        cancellation: CancellationToken | None = None,
    ) -> CompletionResult:
        spec = await self._admitted(spec)
        result = await self._inner.complete(spec, context=context, cancellation=cancellation)
        self._operator.meter.heard(result)
        return result

    async def stream(
        self,
        spec: RequestSpec,
        *,
        context: RequestContext | None = None,
        cancellation: CancellationToken | None = None,
    ) -> AsyncGenerator[StreamEvent]:
        spec = await self._admitted(spec)
        async with aclosing(self._inner.stream(spec, context=context, cancellation=cancellation)) as events:
            async for event in events:
                if isinstance(event, StreamEnded):
                    self._operator.meter.heard(event.result)
                yield event

    async def _admitted(self, spec: RequestSpec) -> RequestSpec:
        """The request with no more `max_tokens` than are left. Raises CallRefused."""
        self._operator.cancellation.raise_if_cancelled()
        if self._operator.overseer is not None:
            await self._operator.overseer.admit_model(spec.role, self._operator.execution)
        self._operator.meter.begin_turn()
        left, wanted = self._operator.meter.rest().max_tokens, spec.params.get("max_tokens")
        if left is None or not isinstance(wanted, int) or wanted <= left:
            return spec
        return spec.model_copy(update={"params": {**spec.params, "max_tokens": left}})


class _GovernedTools:
    """The outermost link around an agent's tool calls."""

    def __init__(self, operator: OperatorContext) -> None:
        self._operator = operator

    async def __call__(self, call: ToolInvocation, next: Next) -> str:
        if self._operator.overseer is not None:
            await self._operator.overseer.admit_tool(call.tool.name, self._operator.execution)
        self._operator.meter.begin_tool_call()
        return await next(call)
