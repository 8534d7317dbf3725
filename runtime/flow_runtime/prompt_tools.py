"""The tools of one prompt, and the way from its model calls into the one loop between models and tools.

What a model asks for is data: a name that is not in the list and arguments that do not fit are told to the model and
reach nothing else, and every call that could be made passes the policy and the ledger first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agentflow.ir import ModelRef, Prompt, PromptTool
from agentflow.settings import NodeSettings
from agentflow.tools import DEFAULT_TOOL_ROUNDS
from flow_runtime.around_tools import around_tools
from flow_runtime.asking import request_context
from flow_runtime.errors import ModelFailed
from flow_runtime.models import ModelAnswer, Models, name_of
from flow_runtime.models_engine import ModelsEngine
from flow_runtime.node_tool import NodeTool
from flow_runtime.parts import NodeParts
from flow_runtime.prompt import Answered
from flow_runtime.registered_tools import registered_tool
from llm_client.agent import Agent
from llm_client.errors import TooManyTurns
from llm_client.tools import Tool


class PromptTools:
    """Bound once. Raises CodeRefused or ToolUnknown for an installed tool that cannot be had here."""

    def __init__(self, node_id: str, prompt: Prompt, settings: NodeSettings, parts: NodeParts) -> None:
        self._tools = tuple(_tool(spec, node_id, settings, parts) for spec in prompt.tools)
        self._rounds = prompt.max_tool_rounds or DEFAULT_TOOL_ROUNDS
        self._clock = parts.clock
        targets = {spec.name: spec.maps_to for spec in prompt.tools}
        self._around = around_tools(node_id, targets, settings, parts)

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
