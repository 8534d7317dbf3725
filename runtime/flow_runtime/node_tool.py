"""A node of the flow as a function that a model may ask for (IR.md Q34)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agentflow.fit import misfit
from agentflow.ir import Port
from agentflow.schemas import compile_schema
from flow_runtime.asking import current
from flow_runtime.dispatch import Dispatcher
from llm_client.errors import ToolArgumentsInvalid, ToolFailed
from runtime_core.errors import DispatchRefusedError, NodeLostError

MAX_REASON = 2_000
"""Characters of a failure's reason that the model is told."""


class NodeTool:
    """Runs a node on a model's arguments, for the node run that asked the model and as a part of it."""

    def __init__(self, tool: str, node: str, ports: tuple[Port, ...], dispatcher: Dispatcher) -> None:
        self._tool = tool
        self._node = node
        self._ports = ports
        self._schemas = {port.name: compile_schema(port.json_schema) for port in ports if port.json_schema is not None}
        self._dispatcher = dispatcher

    async def __call__(self, /, **arguments: Any) -> Any:
        """The value of the node's only output port, or an object of all of them.

        Raises ToolArgumentsInvalid before anything has run, ToolFailed with the reason of the node's failure.
        """
        inputs = self._inputs(arguments)
        asking = current.get()
        assert asking is not None
        try:
            outcome = await self._dispatcher.call(self._node, inputs, replace(asking.call, memory=None))
        except (NodeLostError, DispatchRefusedError) as exc:
            raise ToolFailed(f"The tool {self._tool} did not run: {exc}.", tool=self._tool) from exc
        asking.add(outcome.use)
        if outcome.failure is not None:
            reason = outcome.failure.reason[:MAX_REASON]
            raise ToolFailed(f"The tool {self._tool} failed: {reason}", tool=self._tool)
        outputs = dict(outcome.outputs or {})
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def _inputs(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        inputs = {port.name: arguments.get(port.name) for port in self._ports}
        for port in self._ports:
            value = inputs[port.name]
            if value is None and port.optional:
                continue
            if problem := misfit(value, port.type, self._schemas.get(port.name)):
                message = f"The argument '{port.name}' of the tool {self._tool} is wrong: {problem}."
                raise ToolArgumentsInvalid(message, tool=self._tool)
        return inputs
