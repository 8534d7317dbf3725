"""A node as a Serve deployment: a shell that opens what the node needs and hands every call to its body."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from ray.serve.handle import DeploymentHandle

from agentflow.ir import Node
from agentflow.settings import NodeSettings
from agentflow_serve.dispatch import ServeDispatch
from agentflow_serve.metrics import ServeMetrics
from agentflow_serve.process import open_parts, spare_what_stays
from agentflow_serve.process_settings import ProcessSettings
from agentflow_serve.run_store import RunStore
from agentflow_serve.wire import WireCall, WireOutcome, call_from_wire, outcome_to_wire
from flow_runtime.dispatch import Body, LocalDispatch
from flow_runtime.node import NodeBody


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """All that a node's replica is told; `nodes` are their own parts of the flow, as JSON values.

    Beside the node `id` they are the tools that its prompt calls in the same process.
    """

    id: str
    nodes: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, NodeSettings]
    process: ProcessSettings


class NodeReplica:
    """One process of a node's deployment. `tools` are the deployments of the tools that run elsewhere."""

    async def __init__(self, spec: NodeSpec, sim: DeploymentHandle | None, tools: dict[str, DeploymentHandle]) -> None:
        nodes = {name: Node.model_validate(node) for name, node in spec.nodes.items()}
        self._stack = AsyncExitStack()
        bodies: dict[str, Body] = {}
        dispatch = ServeDispatch(tools, LocalDispatch(bodies))
        store = RunStore(self._stack, spec.process.store)
        metrics = await self._stack.enter_async_context(ServeMetrics(by_scope=spec.process.metrics_by_scope))
        parts = await open_parts(
            self._stack, spec.process, nodes.values(), store=store, sim=sim, tools=dispatch, recorder=metrics
        )
        for name, node in nodes.items():
            body = NodeBody(name, node, spec.settings[name], parts)
            bodies[name] = await self._stack.enter_async_context(body)
        self._body = bodies[spec.id]
        spare_what_stays()

    async def __call__(self, wire: WireCall) -> WireOutcome:
        return outcome_to_wire(await self._body.run(*call_from_wire(wire)))

    async def __del__(self) -> None:
        await self._stack.aclose()
