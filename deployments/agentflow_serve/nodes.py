"""A node as a Serve deployment: a shell that opens what the node needs and hands every call to its body."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from ray.serve.handle import DeploymentHandle

from agentflow.ir import Node
from agentflow.settings import NodeSettings
from agentflow_serve.args import ProcessSettings
from agentflow_serve.process import open_parts
from flow_runtime.call import NodeCall
from flow_runtime.node import NodeBody
from runtime_core.loop import NodeOutcome


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """All that a node's replica is told; `node` is the node's own part of the flow, as JSON values."""

    id: str
    node: Mapping[str, Any]
    settings: NodeSettings
    process: ProcessSettings


class NodeReplica:
    """One process of a node's deployment."""

    async def __init__(self, spec: NodeSpec, sim: DeploymentHandle | None) -> None:
        node = Node.model_validate(spec.node)
        self._stack = AsyncExitStack()
        parts = await open_parts(self._stack, spec.process, [node], sim=sim)
        self._body = await self._stack.enter_async_context(NodeBody(spec.id, node, spec.settings, parts))

    async def __call__(self, inputs: Mapping[str, Any], call: NodeCall) -> NodeOutcome:
        return await self._body.run(inputs, call)

    async def __del__(self) -> None:
        await self._stack.aclose()
