"""A node's body: what one node does with its inputs, wherever it runs.

Local runs, Serve replicas and generated code share it. Prompt first, then the transform (IR.md Q5); attempts,
fallback and the checks of the outputs are in here, so what leaves is an outcome and never an exception.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import Any

from agentflow.ir import Code, Declarative, ModelRef, Node, State
from agentflow.settings import NodeSettings
from flow_runtime.attempts import Attempted, attempt, once
from flow_runtime.bindings import OutputBinder
from flow_runtime.call import NodeCall
from flow_runtime.code import CodeMode, CodeTransform, bind_code
from flow_runtime.context import FlowContext
from flow_runtime.errors import ModelFailed
from flow_runtime.models import Models
from flow_runtime.operations import BoundOperation, OperationCall, OperationResources, OperationSettings, bind_operation
from flow_runtime.prompt import PromptLayer
from flow_runtime.state import NodeStates, NoState, StateBackends
from runtime_core.clock import Clock
from runtime_core.loop import NodeOutcome


@dataclass(frozen=True, slots=True)
class NodeParts:
    """What nodes share within a process; whoever made it closes it. `models` is None where no prompt may run.

    `draw` gives numbers from 0 up to 1; the jitter of the pauses between attempts is made of them.
    """

    clock: Clock
    models: Models | None
    state: StateBackends
    operation_settings: OperationSettings
    operation_resources: OperationResources
    code: CodeMode = "inline"
    draw: Callable[[], float] = field(default_factory=lambda: Random().random)


class _Static(Enum):
    """The source of a prompt's answer that is no model: `fallback.static_response`."""

    TEXT = "static_response"


STATIC = _Static.TEXT
PromptSource = str | ModelRef | _Static | None


class NodeBody:
    """One node of a flow. Use as an async context manager: entering it starts what the node needs to be ready.

    Raises a FlowRuntimeError for a node that cannot run here: a prompt without models, code that is not allowed.
    """

    def __init__(self, node_id: str, node: Node, settings: NodeSettings, parts: NodeParts) -> None:
        self.id = node_id
        self._node = node
        self._settings = settings
        self._parts = parts
        self._inputs = tuple(port.name for port in node.inputs)
        self._binder = OutputBinder(node_id, node.outputs)
        self._prompt = PromptLayer(node_id, node.prompt, settings, self._inputs) if node.prompt else None
        self._operation: BoundOperation | None = None
        self._code: CodeTransform | None = None
        self._states = self._bind_state(node.state) if node.state else None
        self._slots = asyncio.Semaphore(settings.concurrency) if settings.concurrency else None
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
                )
            case Code():
                self._code = bind_code(node.transform, node_id, mode=parts.code, size=settings.concurrency)
            case None:
                pass

    def _bind_state(self, state: State) -> NodeStates:
        return NodeStates(
            self.id,
            state,
            input_names=self._inputs,
            context_names=self._settings.context_names,
            backends=self._parts.state,
        )

    async def __aenter__(self) -> NodeBody:
        if self._code is not None:
            await self._stack.enter_async_context(self._code)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def run(self, inputs: Mapping[str, Any], call: NodeCall) -> NodeOutcome:
        """Run the node once, with all its attempts. `inputs` holds every input port, None for an unfed optional one."""
        if self._slots is None:
            done = await self._attempts(inputs, call)
        else:
            async with self._slots:
                done = await self._attempts(inputs, call)
        return NodeOutcome(outputs=done.value, failure=done.failure, attempts=done.attempts)

    async def _attempts(self, inputs: Mapping[str, Any], call: NodeCall) -> Attempted:
        clock, draw = self._parts.clock, self._parts.draw

        def remaining_s() -> float | None:
            return call.context.remaining_s(clock.now())

        def body(source: PromptSource) -> Callable[[float], Awaitable[dict[str, Any]]]:
            return lambda timeout_s: self._produce(source, inputs, call, timeout_s)

        primary = self._settings.model
        done = await attempt(body(primary), self._settings, clock=clock, draw=draw, remaining_s=remaining_s)
        for source in self._fallbacks(done):
            done = await once(body(source), self._settings, number=done.attempts + 1, remaining_s=remaining_s)
            if done.failure is None:
                break
        return done

    def _fallbacks(self, done: Attempted) -> tuple[PromptSource, ...]:
        """The fallback model once, then the static text, if the last failure is of a kind that asks for them."""
        fallback = self._node.prompt.fallback if self._node.prompt else None
        if fallback is None or done.failure is None or done.failure.kind not in fallback.on:
            return ()
        model = fallback.role or fallback.model
        static = (STATIC,) if fallback.static_response is not None else ()
        return (model, *static) if model is not None else static

    async def _produce(
        self, source: PromptSource, inputs: Mapping[str, Any], call: NodeCall, timeout_s: float
    ) -> dict[str, Any]:
        values: dict[str, Any] = {**inputs, "context": call.fields}
        if self._prompt is not None:
            values["prompt_output"] = await self._ask(self._prompt, source, values)
        if self._operation is not None:
            at = OperationCall(node_id=self.id, context=call.fields, deadline_s=timeout_s)
            return self._binder.bind_value(await self._operation.run(values, at))
        if self._code is not None:
            given = {name: value for name, value in values.items() if name != "context"}
            state = self._states.open(inputs, call) if self._states else NoState(self.id)
            context = FlowContext(call.fields)
            return self._binder.bind_ports(await self._code.call(given, context, state, timeout_s=timeout_s))
        return self._binder.bind_value(values["prompt_output"])

    async def _ask(self, prompt: PromptLayer, source: PromptSource, values: Mapping[str, Any]) -> Any:
        if source == STATIC:
            return prompt.static()
        if self._parts.models is None or source is None or isinstance(source, _Static):
            raise ModelFailed(f"node '{self.id}' has a prompt and no model")
        return await prompt.ask(self._parts.models, source, values)
