"""A node's replica, as it is deployed, that also says what its process is like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve import Application

from agentflow import from_mapping, plan
from agentflow_serve.nodes import NodeReplica, NodeSpec
from agentflow_serve.process_settings import ProcessSettings
from agentflow_serve.wire import call_to_wire
from benchmarks import by_hand, flows
from flow_runtime.call import NodeCall
from runtime_core.context import ExecutionContext


class WatchedReplica(NodeReplica):
    async def process_after(self, inputs: Mapping[str, Any]) -> tuple[int, list[str]]:
        """The process once the node has run, however that ended."""
        await self(call_to_wire(inputs, NodeCall(context=ExecutionContext(), fields={})))
        return by_hand.Empty().process()


def node(name: str, op: str, args: Mapping[str, Any]) -> Application:
    """An application of one node's deployment."""
    planned = plan(from_mapping(flows.single(name, {"mode": "declarative", "spec": {"op": op, "args": args}})).flow)
    spec = NodeSpec(
        id=flows.HEAD,
        nodes={flows.HEAD: planned.node(flows.HEAD).model_dump(mode="json", by_alias=True, exclude_defaults=True)},
        settings={flows.HEAD: planned.settings[flows.HEAD]},
        process=ProcessSettings(llmhub=None, roles=(), store="memory:", code="inline", allow_hosts=("127.0.0.1:1",)),
    )
    make: Any = serve.deployment(name=name, ray_actor_options={"num_cpus": by_hand.NUM_CPUS})
    return make(WatchedReplica).bind(spec, None, {})
