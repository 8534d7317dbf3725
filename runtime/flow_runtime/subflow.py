"""A node whose work is a flow of its own, run in the node's process by the same loop as every flow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from typing import Any

from agentflow.ir import FailureType, Flow, Node
from agentflow.planning import plan
from agentflow.settings import NodeSettings
from agentflow.types import cast
from flow_runtime.asking import current
from flow_runtime.bindings import OutputBinder
from flow_runtime.call import NodeCall
from flow_runtime.dispatch import Body, LocalDispatch
from flow_runtime.errors import SubflowFailed
from flow_runtime.models import accounts_of
from flow_runtime.parts import NodeParts
from flow_runtime.runner import FlowRunner
from flow_runtime.work import Produced, PromptSource
from runtime_core.report import RunReport

MARGIN_S = 0.02
"""The inner run ends this much before the attempt, so that its report, which names the node, is the one that counts."""

MakeBody = Callable[[str, Node, NodeSettings, NodeParts], AbstractAsyncContextManager[Body]]


class SubflowWork:
    """Every attempt is one run of the flow: a child of the run that it is part of, with its identity and trace.

    The input ports make the request; an optional one without a value is left out, so that the flow's own default
    counts.
    """

    def __init__(self, node_id: str, node: Node, parts: NodeParts, make_body: MakeBody) -> None:
        assert isinstance(node.flow, Flow)
        self._plan = plan(node.flow)
        self._name = node.flow.metadata.name
        self._parts = parts
        self._binder = OutputBinder(node_id, node.outputs, checks=node.for_each is None)
        element = node.for_each.input if node.for_each else None
        fields = {field.name: field.type for field in self._plan.signature.inputs}
        self._optional = {port.name for port in node.inputs if port.optional}
        self._takes = {
            port.name: (None if port.name == element else port.type, fields.get(port.name)) for port in node.inputs
        }
        made = {field.name: field.type for field in self._plan.signature.outputs}
        self._makes = {port.name: (made.get(port.name), port.type) for port in node.outputs if node.for_each is None}
        self._ready: dict[str, Body] = {}
        self._dispatch = LocalDispatch(self._ready)
        inner = replace(parts, tools=self._dispatch)
        self._bodies = {
            name: make_body(name, self._plan.node(name), self._plan.settings[name], inner)
            for name in (*self._plan.graph.nodes, *self._plan.tools)
        }
        self._stack = AsyncExitStack()
        self._runner: FlowRunner | None = None

    async def __aenter__(self) -> SubflowWork:
        async with AsyncExitStack() as stack:
            for name, body in self._bodies.items():
                self._ready[name] = await stack.enter_async_context(body)
            self._stack = stack.pop_all()
        parts = self._parts
        self._runner = FlowRunner(
            self._plan,
            self._dispatch,
            clock=parts.clock,
            ids=parts.ids,
            state=parts.state,
            accounts=accounts_of(parts.models),
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def produce(
        self, source: PromptSource, inputs: Mapping[str, Any], call: NodeCall, timeout_s: float
    ) -> Produced:
        """The outputs by port, and the turns that the session gets.

        Raises SubflowFailed with the kind of the failure inside; CastError, OutputInvalid.
        """
        assert self._runner is not None
        request = {
            name: cast(inputs[name], given, taken)
            for name, (given, taken) in self._takes.items()
            if inputs[name] is not None or name not in self._optional
        }
        report = await self._runner.run(request, parent=call, deadline_s=max(timeout_s - MARGIN_S, 0))
        if (outer := current.get()) is not None:
            outer.add(report.use)
        if report.error is not None:
            message = f"in the flow '{self._name}': {report.error.message}"
            raise SubflowFailed(
                message,
                kind=_kind(report),
                node=report.error.node,
                retry_after=report.error.retry_after,
                refused=report.error.refused,
            )
        return Produced(self._binder.bind_value(self._cast(report.output)), report.records)

    def _cast(self, answer: Any) -> Any:
        """Named parts become what their ports declare, as they would on an edge."""
        if not isinstance(answer, dict) or not self._plan.signature.outputs:
            return answer
        return {
            name: cast(value, *self._makes[name]) if name in self._makes else value
            for name, value in answer.items()  # pyright: ignore[reportUnknownVariableType]
        }


def _kind(report: RunReport) -> FailureType:
    """The kind of failure of the node that ended the run."""
    assert report.error is not None
    if report.error.code == "deadline_exceeded":
        return "timeout"
    code = report.error.code
    if code == "budget_exceeded" or code == "policy_denied" or code == "unavailable":
        return code
    inner = report.nodes.get(report.error.node) if report.error.node else None
    return inner.error["type"] if inner is not None and inner.error is not None else "error"
