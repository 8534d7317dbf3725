"""The tools of one prompt, and the way from its model calls into the one loop between models and tools.

What a model asks for is data: a name that is not in the list and arguments that do not fit are told to the model and
reach nothing else, and every call that could be made passes the policy first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agentflow.ir import ModelRef, Prompt, PromptTool
from agentflow.settings import NodeSettings
from agentflow.tools import DEFAULT_TOOL_ROUNDS
from flow_runtime.asking import current, request_context
from flow_runtime.budgets import RunAccounts
from flow_runtime.errors import ModelFailed
from flow_runtime.exceeding import within_budget
from flow_runtime.models import ModelAnswer, Models, accounts_of, name_of
from flow_runtime.models_engine import ModelsEngine
from flow_runtime.node_tool import NodeTool
from flow_runtime.parts import NodeParts
from flow_runtime.prompt import Answered
from flow_runtime.refusals import not_allowed
from flow_runtime.registered_tools import registered_tool
from flow_runtime.tool_policy import ToolPolicy, ToolRequest
from llm_client.agent import Agent
from llm_client.agent.middleware import Next, Timeout, ToolInvocation
from llm_client.errors import TooManyTurns
from llm_client.tools import Tool


class PromptTools:
    """Bound once. Raises CodeRefused or ToolUnknown for an installed tool that cannot be had here."""

    def __init__(self, node_id: str, prompt: Prompt, settings: NodeSettings, parts: NodeParts) -> None:
        self._tools = tuple(_tool(spec, node_id, settings, parts) for spec in prompt.tools)
        self._rounds = prompt.max_tool_rounds or DEFAULT_TOOL_ROUNDS
        self._clock = parts.clock
        targets = {spec.name: spec.maps_to for spec in prompt.tools}
        self._around = (
            Policed(node_id, targets, parts.tool_policy),
            *counted(parts),
            Timeout(settings.timeout_s, clock=parts.clock),
        )

    async def ask(
        self,
        models: Models,
        model: str | ModelRef,
        messages: Sequence[Mapping[str, Any]],
        params: Mapping[str, Any],
    ) -> Answered:
        """The model's answer, after the tools that it asks for have run.

        Raises ModelFailed for a model that goes on asking for them, and what `Models.chat` raises.
        """
        agent = Agent(
            engine=ModelsEngine(models, model),
            tools=self._tools,
            middleware=self._around,
            max_turns=self._rounds + 1,
            params=params,
            clock=self._clock,
        )
        try:
            result = await agent.run(messages, context=request_context())
        except TooManyTurns as exc:
            message = (
                f"the model still asked for tools after {self._rounds} rounds of them; "
                "raise max_tool_rounds, or say in the system message when to stop"
            )
            raise ModelFailed(message, model=name_of(model)) from exc
        usage = {"input": result.usage.input, "output": result.usage.output}
        answer = ModelAnswer(result.content, result.finish_reason, usage)
        return Answered(answer, result.messages[len(messages) : -1])


def _tool(spec: PromptTool, node_id: str, settings: NodeSettings, parts: NodeParts) -> Tool:
    if spec.maps_to is None:
        return registered_tool(spec, node_id, parts.code)
    call = NodeTool(spec.name, spec.maps_to, settings.tools[spec.maps_to], parts.tools)
    parameters = spec.parameters or {"type": "object"}
    return Tool(call, name=spec.name, description=spec.description or "", parameters=parameters)


def counted(parts: NodeParts) -> tuple[Counted, ...]:
    """What counts the calls, where there are accounts."""
    accounts = accounts_of(parts.models)
    return () if accounts is None else (Counted(accounts),)


class Counted:
    """Counts every call that will be made. One that the budget has no room for ends the node: no model can help it."""

    def __init__(self, accounts: RunAccounts) -> None:
        self._accounts = accounts

    async def __call__(self, call: ToolInvocation, next: Next) -> str:
        from agent_runtime.errors import BudgetExceededError

        asking = current.get()
        assert asking is not None
        run, name = asking.call.context, call.tool.name

        async def count(_: str) -> None:
            await self._accounts.count_tool_call(run, name, budgeted=run.budgets is not None)

        try:
            await within_budget(name, count, self._accounts, may_degrade=False)
        except BudgetExceededError as exc:
            raise not_allowed(exc) from exc
        return await next(call)


class Policed:
    """Asks the policy about every call. `targets` are the nodes that run as tools, by the tool's name."""

    def __init__(self, node_id: str, targets: Mapping[str, str | None], policy: ToolPolicy) -> None:
        self._node = node_id
        self._targets = targets
        self._policy = policy

    async def __call__(self, call: ToolInvocation, next: Next) -> str:
        asking = current.get()
        assert asking is not None
        name = call.tool.name
        request = ToolRequest(self._node, name, self._targets[name], call.arguments, asking.call)
        await self._policy.admit(request)
        return await next(call)
