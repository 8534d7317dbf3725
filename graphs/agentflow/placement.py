"""Where the nodes of a plan run: their stages, what each replica asks for, and what the hops cost.

A stage is one Serve deployment with the nodes it holds; nodes `inline` run in the predictor's own process.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from agentflow.ir import Autoscaling, Placement, Resources
from agentflow.planning import Plan
from agentflow.tools import reached_tools

HANDLE_CALL_CPU_MS = 2.0
"""CPU time of one call from the predictor to a node's replica, as measured on Ray Serve 2.60."""

DEFAULT_NUM_CPUS = 0.05
"""Ray's own default of 1 leaves an app of five deployments waiting for ever on two cores."""

DEFAULT_CONCURRENCY = 64
_UNITS = {"": 1} | {
    unit: base**power
    for power, prefix in enumerate("KMGT", start=1)
    for unit, base in ((prefix, 1000), (f"{prefix}i", 1024))
}


@dataclass(frozen=True, slots=True)
class Replicas:
    """Sizing of one deployment. `memory` in bytes, 0 for no reservation."""

    num_cpus: float = DEFAULT_NUM_CPUS
    num_gpus: float = 0.0
    memory: int = 0
    min_replicas: int = 1
    max_replicas: int = 1
    target_ongoing_requests: float | None = None
    concurrency: int = DEFAULT_CONCURRENCY


@dataclass(frozen=True, slots=True)
class Stage:
    """`deployment` is None for the predictor's own process, where calls are plain function calls.

    Behind the node that has the deployment come the tools of its prompt that are placed `inline`: they run in the
    process of whoever calls them. `tools` are those with deployments of their own that the stage calls.
    """

    deployment: str | None
    nodes: tuple[str, ...]
    replicas: Replicas
    tools: tuple[str, ...] = ()


def placement_of(plan: Plan, node: str, override: Placement | None = None) -> Placement:
    """The serve config's placement, else the node's, else the flow's, else `per_node`."""
    ray = plan.flow.deployment.ray
    flow_wide = ray.placement if ray else None
    return override or plan.node(node).runtime.placement or flow_wide or "per_node"


def stages(plan: Plan, override: Placement | None = None) -> tuple[Stage, ...]:
    """The stages of a plan in the order of the flow file, the predictor's own first when it holds nodes."""

    def is_inline(node: str) -> bool:
        return placement_of(plan, node, override) == "inline"

    def stage(deployment: str | None, nodes: tuple[str, ...], replicas: Replicas) -> Stage:
        called = reached_tools(plan.flow, nodes, through=is_inline)
        inner = tuple(tool for tool in plan.tools if tool in called and is_inline(tool))
        outer = tuple(tool for tool in plan.tools if tool in called and not is_inline(tool))
        return Stage(deployment, (*nodes, *inner), replicas, outer)

    inline = tuple(filter(is_inline, plan.graph.nodes))
    own = tuple(
        stage(f"{plan.name}.{node}", (node,), node_replicas(plan, node))
        for node in (*plan.graph.nodes, *plan.tools)
        if not is_inline(node)
    )
    return (stage(None, inline, predictor_replicas(plan)), *own) if inline else own


def node_replicas(plan: Plan, node: str) -> Replicas:
    """What one node's deployment asks for: the node's own word, else the flow's `deployment.ray`."""
    runtime, ray = plan.node(node).runtime, plan.flow.deployment.ray
    return _replicas(
        runtime.resources or (ray.resources if ray else None),
        runtime.autoscaling or (ray.autoscaling if ray else None),
        plan.settings[node].concurrency,
    )


def predictor_replicas(plan: Plan) -> Replicas:
    """`deployment.kserve.min_replicas` and `max_replicas` size the predictor."""
    kserve = plan.flow.deployment.kserve
    low = kserve.min_replicas if kserve and kserve.min_replicas is not None else 1
    high = kserve.max_replicas if kserve and kserve.max_replicas is not None else max(low, 1)
    return Replicas(min_replicas=low, max_replicas=max(low, high), concurrency=1024)


def memory_bytes(memory: int | str | None) -> int:
    """Bytes of `512Mi`, `2G` or a plain number; 0 for None."""
    if memory is None or isinstance(memory, int):
        return memory or 0
    number, unit = re.fullmatch(r"([\d.]+)([A-Za-z]*)", memory).groups()  # pyright: ignore[reportOptionalMemberAccess]
    return int(float(number) * _UNITS[unit])


def _replicas(resources: Resources | None, autoscaling: Autoscaling | None, concurrency: int | None) -> Replicas:
    asked, scaling = resources or Resources(), autoscaling or Autoscaling()
    return Replicas(
        num_cpus=DEFAULT_NUM_CPUS if asked.num_cpus is None else asked.num_cpus,
        num_gpus=asked.num_gpus or 0.0,
        memory=memory_bytes(asked.memory),
        min_replicas=scaling.min_replicas,
        max_replicas=max(scaling.max_replicas, scaling.min_replicas),
        target_ongoing_requests=scaling.target_ongoing_requests,
        concurrency=concurrency or DEFAULT_CONCURRENCY,
    )
