"""From the arguments of a serve config to a Serve application: one deployment per node, composed by the predictor.

This module must not postpone its annotations: Serve reads `app`'s to turn the config's `args` into an AppArgs.
"""

from collections.abc import Iterable
from graphlib import TopologicalSorter
from typing import Any

from ray import serve
from ray.serve import Application

from agentflow.feature_use import calls_models, operation_of
from agentflow.operations import HANDLE_OPERATIONS
from agentflow.placement import Replicas, Stage, predictor_replicas, stages
from agentflow.planning import Plan
from agentflow_serve.args import AppArgs
from agentflow_serve.deployment_options import SIM_DRAIN_S, SIM_REPLICAS, node_drain_s, options_of, sim_name
from agentflow_serve.errors import AppInvalid
from agentflow_serve.inputs import read_inputs
from agentflow_serve.nodes import NodeReplica, NodeSpec
from agentflow_serve.predictor import Predictor, PredictorSpec
from agentflow_serve.process_settings import ProcessSettings
from agentflow_serve.sim import SimReplica
from flow_runtime.budgets import asks_for_more
from flow_runtime.compiled.agent import LocalAgent
from flow_runtime.hub_models import called_roles, needs_list_prices


def app(args: AppArgs) -> Application:
    """The application of one flow (import path `agentflow_serve:app`).

    Raises FlowInvalid with every finding, ConfigError for a bad llmhub.yaml, AppInvalid where both do not fit.
    """
    return build(args)


def build(args: AppArgs, *, agent: type[LocalAgent] | None = None) -> Application:
    """The same; the nodes in the predictor's replica are the methods of `agent`, if that is the flow compiled."""
    inputs = read_inputs(args)
    planned = inputs.plan
    process = ProcessSettings(
        llmhub=inputs.llmhub.model_dump(mode="json") if inputs.llmhub else None,
        roles=tuple(sorted(called_roles(planned.flow, args.embedder, inputs.llmhub.judge if inputs.llmhub else None))),
        store=args.store,
        code=args.code,
        allow_hosts=args.allow_hosts,
        feature_store=inputs.feature_store,
        embedder=args.embedder,
        slot_modules=args.slot_modules,
        policy=inputs.policy,
        list_prices=inputs.llmhub is not None and needs_list_prices(planned.flow, inputs.llmhub, args.embedder),
        session_ttl_s=args.session_ttl_s,
        calls_ttl_s=args.calls_ttl_s,
        ledger=args.ledger,
        asks_for_more=asks_for_more(planned.flow),
        metrics_by_scope=args.metrics_by_scope,
    )
    sim = _sim(planned, inputs.sim_script) if inputs.needs_sim else None
    placed = stages(planned, args.placement)
    _check_handles(planned, args)
    deadline_s = args.limits.deadline_s
    nodes = _nodes(planned, placed, process, sim, deadline_s=deadline_s)
    here = next((stage for stage in placed if stage.deployment is None), Stage(None, (), Replicas()))
    spec = PredictorSpec(
        flow=planned.flow.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"tests"}),
        process=process,
        limits=args.limits,
        inline=here.nodes,
        agent=agent,
        auth=args.auth,
        budgets=() if inputs.budgets is None else inputs.budgets.budgets,
    )
    called = {node: target for node, target in nodes.items() if node not in planned.tools or node in here.tools}
    return _deployment(Predictor, planned.name, predictor_replicas(planned), drain_s=deadline_s).bind(
        spec, called, sim if spec.inline else None
    )


def _nodes(
    planned: Plan, placed: Iterable[Stage], process: ProcessSettings, sim: Application | None, *, deadline_s: float
) -> dict[str, Application]:
    """The deployments of nodes, by node; each is bound to those of the tools that it calls, which are made first."""
    left = {stage.nodes[0]: stage for stage in placed if stage.deployment}
    made: dict[str, Application] = {}
    order = TopologicalSorter({node: stage.tools for node, stage in left.items()})
    for node in order.static_order():
        tools = {tool: made[tool] for tool in left[node].tools}
        made[node] = _node(planned, left[node], process, sim, tools, deadline_s=deadline_s)
    return {node: made[node] for node in left}


def _node(
    planned: Plan,
    stage: Stage,
    process: ProcessSettings,
    sim: Application | None,
    tools: dict[str, Application],
    *,
    deadline_s: float,
) -> Application:
    node = stage.nodes[0]
    inside = [planned.node(name) for name in stage.nodes]
    spec = NodeSpec(
        id=node,
        nodes={
            name: planned.node(name).model_dump(mode="json", by_alias=True, exclude_unset=True) for name in stage.nodes
        },
        settings={name: planned.settings[name] for name in stage.nodes},
        process=process,
    )
    assert stage.deployment is not None
    drain_s = node_drain_s(planned, node, deadline_s)
    deployment = _deployment(NodeReplica, stage.deployment, stage.replicas, drain_s=drain_s)
    return deployment.bind(spec, sim if calls_models(inside, process.embedder) else None, tools)


def _check_handles(planned: Plan, args: AppArgs) -> None:
    """A handle reaches only what runs in its process. The flow was checked with its own placement, not with ours."""
    if args.placement != "per_node":
        return
    for wire in planned.graph.wires:
        spec = operation_of(planned.node(wire.source)) if wire.source else None
        if spec is not None and spec.op in HANDLE_OPERATIONS and not wire.from_error:
            raise AppInvalid(
                f"the model that '{wire.source}' gets cannot go to another process; remove `placement: per_node`"
            )


def _sim(planned: Plan, script: dict[str, Any] | None) -> Application:
    if "sim" in planned.settings:
        raise AppInvalid("a node may not be called 'sim' beside the simulated model; rename the node")
    return _deployment(SimReplica, sim_name(planned.name), SIM_REPLICAS, drain_s=SIM_DRAIN_S).bind(script)


def _deployment(target: type, name: str, replicas: Replicas, *, drain_s: float) -> serve.Deployment:
    make: Any = serve.deployment(name=name, **options_of(replicas, drain_s=drain_s))
    return make(target)
