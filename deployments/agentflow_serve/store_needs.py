"""Why the replicas of an app must share a run store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentflow.feature_use import asks_people
from agentflow.placement import predictor_replicas, stages
from agentflow.subflows import all_flows, all_nodes
from agentflow_serve.args import AppArgs
from agentflow_serve.errors import AppInvalid
from flow_runtime.budgets import asks_for_more
from runtime_core.stores.url import MEMORY

if TYPE_CHECKING:
    from agent_runtime.policy.rules import PolicyDocument
    from agentflow.ir import Flow
    from agentflow.planning import Plan


def why_asked(flow: Flow, policy: PolicyDocument | None) -> str | None:
    """Why people are asked: what one replica asks is answered through another."""
    if asks_people(flow.nodes.values()):
        return "the flow asks people (`action.require`)"
    if asks_for_more(flow):
        return "the flow asks people for a larger budget (`on_exceed: ask`)"
    if policy is not None:
        from agent_runtime.policy.policy_file import asks_people as policy_asks

        if policy_asks(policy):
            return "the policy asks people (`require_approval`)"
    return None


def has_budgets(flow: Flow) -> bool:
    """Whether a flow, or a subflow of it, has budgets: the predictor opens them, and its nodes draw on them."""
    return any(each.budgets is not None for each in all_flows(flow))


def keeps_state(flow: Flow) -> bool:
    """Whether a node's state is in the run store (`backend: store`)."""
    return any(node.state and node.state.backend == "store" for node in all_nodes(flow.nodes.values()))


def check_memory_store(planned: Plan, policy: PolicyDocument | None, args: AppArgs) -> None:
    """Raises AppInvalid where replicas must share a store and each would have its own `memory:`."""
    if args.store != MEMORY:
        return
    apart = any(stage.deployment for stage in stages(planned, args.placement))
    asked = why_asked(planned.flow, policy)
    if apart and has_budgets(planned.flow):
        why = "the flow has budgets"
    elif asked and (apart or predictor_replicas(planned).max_replicas > 1):
        why = asked
    else:
        return
    raise AppInvalid(f"{why}, and its replicas do not share `memory:`; name a store under `store`")
