"""One attempt at a node: its prompt, then its transform, bound to its output ports (IR.md Q5)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from agentflow.agent_use import agent_tools
from agentflow.ir import Code, Declarative, ModelRef, Node, Prompt, State
from agentflow.operations import HANDLE_OPERATIONS
from agentflow.settings import NodeSettings
from flow_runtime.bindings import OutputBinder
from flow_runtime.call import NodeCall
from flow_runtime.context import FlowContext
from flow_runtime.errors import ModelFailed
from flow_runtime.operations import BoundOperation, OperationCall, Preparing, bind_operation
from flow_runtime.parts import NodeParts
from flow_runtime.state import NodeStates, NoState
from runtime_core.sessions.records import SessionRecord

if TYPE_CHECKING:
    from flow_runtime.agent_tools import AgentTools
    from flow_runtime.code import CodeTransform
    from flow_runtime.prompt import PromptLayer


class _Static(Enum):
    """The source of a prompt's answer that is no model: `fallback.static_response`."""

    TEXT = "static_response"


STATIC = _Static.TEXT
PromptSource = str | ModelRef | _Static | None


@dataclass(frozen=True, slots=True)
class Produced:
    """What an attempt made: outputs by port, and the turns of the prompt where they are remembered."""

    outputs: dict[str, Any] | None = None
    records: tuple[SessionRecord, ...] = ()


class NodeWork:
    """What one node does, compiled once. Use as an async context manager.

    Raises a FlowRuntimeError for a node that cannot run here: a prompt without models, code that is not allowed.
    """

    def __init__(self, node_id: str, node: Node, settings: NodeSettings, parts: NodeParts) -> None:
        self.id = node_id
        self._settings = settings
        self._parts = parts
        self._inputs = tuple(port.name for port in node.inputs)
        is_json = not (isinstance(node.transform, Declarative) and node.transform.spec.op in HANDLE_OPERATIONS)
        self._binder = OutputBinder(node_id, node.outputs, checks=node.for_each is None and is_json)
        self._prompt = self._bind_prompt(node.prompt, settings) if node.prompt else None
        self._operation: BoundOperation | None = None
        self._code: CodeTransform | None = None
        self._states = self._bind_state(node.state) if node.state else None
        self._stack = AsyncExitStack()
        if node.prompt is not None and parts.models is None:
            raise ModelFailed(f"node '{node_id}' has a prompt: name an llmhub.yaml that says which model answers it")
        match node.transform:
            case Declarative():
                self._operation = bind_operation(
                    node.transform.spec,
                    names=(*self._inputs, "context", *(("prompt_output",) if node.prompt else ())),
                    settings=parts.operation_settings,
                    resources=parts.operation_resources,
                    models=parts.models,
                    model=settings.model,
                    tools=self._agent_tools(node),
                )
            case Code():
                from flow_runtime.code import bind_code

                self._code = bind_code(node.transform, node_id, mode=parts.code, size=settings.concurrency)
            case None:
                pass

    def _bind_prompt(self, prompt: Prompt, settings: NodeSettings) -> PromptLayer:
        from flow_runtime.prompt import PromptLayer  # and with it jinja2, which nodes without a prompt spare

        return PromptLayer(self.id, prompt, settings, self._inputs, self._parts)

    def _agent_tools(self, node: Node) -> AgentTools | None:
        if not (names := agent_tools(node)):
            return None
        from flow_runtime.agent_tools import AgentTools

        return AgentTools(self.id, names, self._settings, self._parts)

    def _bind_state(self, state: State) -> NodeStates:
        return NodeStates(
            self.id,
            state,
            input_names=self._inputs,
            context_names=self._settings.context_names,
            backends=self._parts.state,
        )

    async def __aenter__(self) -> NodeWork:
        if self._code is not None:
            await self._stack.enter_async_context(self._code)
        if isinstance(self._operation, Preparing):
            await self._operation.prepare()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def produce(
        self, source: PromptSource, inputs: Mapping[str, Any], call: NodeCall, timeout_s: float
    ) -> Produced:
        """The outputs by port, with the prompt answered by `source`. Raises an AgentflowError or a FlowError."""
        values: dict[str, Any] = {**inputs, "context": call.fields}
        records: tuple[SessionRecord, ...] = ()
        if self._prompt is not None:
            values["prompt_output"], records = await self._ask(self._prompt, source, values, call)
        return Produced(await self._outputs(values, inputs, call, timeout_s), records)

    async def _outputs(
        self, values: dict[str, Any], inputs: Mapping[str, Any], call: NodeCall, timeout_s: float
    ) -> dict[str, Any]:
        if self._operation is not None:
            at = OperationCall(node_id=self.id, context=call.fields, deadline_s=timeout_s, run=call.context)
            return self._binder.bind_value(await self._operation.run(values, at))
        if self._code is not None:
            given = {name: value for name, value in values.items() if name != "context"}
            state = self._states.open(inputs, call) if self._states else NoState(self.id)
            context = FlowContext(call.fields)
            return self._binder.bind_ports(await self._code.call(given, context, state, timeout_s=timeout_s))
        return self._binder.bind_value(values["prompt_output"])

    async def _ask(
        self, prompt: PromptLayer, source: PromptSource, values: Mapping[str, Any], call: NodeCall
    ) -> tuple[Any, tuple[SessionRecord, ...]]:
        if source == STATIC:
            return prompt.static(), ()
        if self._parts.models is None or source is None or isinstance(source, _Static):
            raise ModelFailed(f"node '{self.id}' has a prompt and no model")
        return await prompt.ask(self._parts.models, source, values, call)
