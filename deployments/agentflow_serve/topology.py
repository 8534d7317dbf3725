"""Which deployment calls which: as the flow has it, and as a cluster says it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentflow.feature_use import calls_models
from agentflow.placement import stages
from agentflow_serve.args import AppArgs
from agentflow_serve.deployment_options import sim_name
from agentflow_serve.inputs import AppInputs

Topology = Mapping[str, frozenset[str]]
"""Every deployment, and those that it calls."""


def topology_of(inputs: AppInputs, args: AppArgs) -> Topology:
    """What must come of a flow: the predictor calls nodes, nodes call tools, and prompts call the simulated model."""
    plan = inputs.plan
    sim = {sim_name(plan.name)} if inputs.needs_sim else set[str]()
    placed = stages(plan, args.placement)
    here = next((stage for stage in placed if stage.deployment is None), None)
    called: set[str] = sim if here is not None else set()
    found: dict[str, frozenset[str]] = {name: frozenset() for name in sim}
    for stage in placed:
        if stage.deployment is None:
            continue
        node = stage.nodes[0]
        if node not in plan.tools or (here is not None and node in here.tools):
            called = called | {stage.deployment}
        tools = {f"{plan.name}.{tool}" for tool in stage.tools}
        models = calls_models([plan.node(name) for name in stage.nodes], args.embedder)
        found[stage.deployment] = frozenset(tools | (sim if models else set()))
    return {**found, plan.name: frozenset(called)}


def deployed_topology(details: Mapping[str, Any]) -> Topology:
    """The same of an application on a cluster, from what the Serve REST API says of it."""
    nodes = (details.get("deployment_topology") or {}).get("nodes") or {}
    return {
        name: frozenset(each["name"] for each in node.get("outbound_deployments") or ()) for name, node in nodes.items()
    }


def differences(expected: Topology, found: Topology) -> tuple[str, ...]:
    """Sentences for what is not as it should be; none when both are the same."""
    said = [f"the deployment '{name}' is missing" for name in sorted(expected.keys() - found.keys())]
    said += [
        f"there is a deployment '{name}' that the flow does not have" for name in sorted(found.keys() - expected.keys())
    ]
    for name in sorted(expected.keys() & found.keys()):
        said += [f"'{name}' does not call '{other}'" for other in sorted(expected[name] - found[name])]
        said += [f"'{name}' calls '{other}', and should not" for other in sorted(found[name] - expected[name])]
    return tuple(said)
