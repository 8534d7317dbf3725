"""What an app is built from: the flow, planned, and the models it may call, read and held against each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentflow import from_mapping, load
from agentflow.agent_use import agent_operation
from agentflow.checks import Surroundings
from agentflow.feature_use import embedders_of, feature_nodes
from agentflow.ir import Flow
from agentflow.planning import Plan, plan
from agentflow.subflows import all_nodes
from agentflow_serve.args import AppArgs
from agentflow_serve.errors import AppInvalid
from agentflow_serve.store_needs import check_memory_store
from flow_runtime.feature_store.url import check_feature_store
from flow_runtime.hub_models import called_roles, needs_sim

if TYPE_CHECKING:
    from agent_runtime.ledger.budget_file import BudgetDocument
    from agent_runtime.policy.rules import PolicyDocument
    from llmhub_runtime.models import RuntimeConfig


@dataclass(frozen=True, slots=True)
class AppInputs:
    """`needs_sim`: a role is the simulated model and nobody says where that is, so the app brings one.

    `feature_store` is its address, of a folder in full, for a flow that uses one.
    """

    plan: Plan
    llmhub: RuntimeConfig | None
    needs_sim: bool
    sim_script: dict[str, Any] | None
    feature_store: str | None = None
    budgets: BudgetDocument | None = None
    policy: PolicyDocument | None = None


def read_inputs(args: AppArgs) -> AppInputs:
    """Read every file that the arguments name.

    Raises FlowInvalid with every finding, ConfigError for a bad llmhub.yaml, SimScriptError for a bad script,
    DocumentInvalid for bad budgets or a bad policy, FeatureStoreInvalid for a flow on a feature store that cannot be
    used, UnknownRoleError or AppInvalid where flow and llmhub.yaml do not fit, AppInvalid for `memory:` where replicas
    must share a store.
    """
    flow = _flow(args.flow, has_embedder=args.embedder is not None)
    llmhub = read_llmhub(args.llmhub)
    feature_store = check_feature_store(args.feature_store) if feature_nodes(flow.nodes.values()) else None
    planned, policy = plan(flow), read_policy(args.policy)
    check_memory_store(planned, policy, args)
    return AppInputs(
        plan=planned,
        llmhub=llmhub,
        needs_sim=_needs_sim(flow, llmhub, args.embedder),
        sim_script=_sim_script(args.sim_script),
        feature_store=feature_store,
        budgets=read_budgets(args.budgets, flow, llmhub, args.embedder),
        policy=policy,
    )


def _flow(flow: str | dict[str, Any], *, has_embedder: bool) -> Flow:
    known: Surroundings = {"has_embedder": has_embedder}
    loaded = load(_path(flow), **known) if isinstance(flow, str) else from_mapping(flow, **known)
    return loaded.flow


def read_llmhub(llmhub: str | dict[str, Any] | None) -> RuntimeConfig | None:
    """An llmhub.yaml, by path or as it is. Raises ConfigError; AppInvalid where there is no such file."""
    from llmhub_runtime.config_loader import load_runtime_config, parse_runtime_config

    if llmhub is None:
        return None
    return load_runtime_config(str(_path(llmhub))) if isinstance(llmhub, str) else parse_runtime_config(llmhub)


def read_budgets(
    budgets: str | dict[str, Any] | None, flow: Flow, llmhub: RuntimeConfig | None, embedder: str | None = None
) -> BudgetDocument | None:
    """A budgets.yaml, by path or as it is, for the roles of a flow and its models.

    Raises DocumentInvalid; AppInvalid where there is no such file.
    """
    if budgets is None:
        return None
    from agent_runtime.ledger.budget_file import load_budgets

    roles = called_roles(flow, embedder, llmhub.judge if llmhub else None) | set(llmhub.roles if llmhub else ())
    return load_budgets(_path(budgets) if isinstance(budgets, str) else budgets, roles=roles)


def read_policy(policy: str | dict[str, Any] | None) -> PolicyDocument | None:
    """A policy, by path or as it is. Raises DocumentInvalid; AppInvalid where there is no such file."""
    if policy is None:
        return None
    from agent_runtime.policy.policy_file import OF_FLOWS, load_policy

    return load_policy(_path(policy) if isinstance(policy, str) else policy, kinds=OF_FLOWS)


def _sim_script(script: str | dict[str, Any] | None) -> dict[str, Any] | None:
    from llmhub_runtime.sim import load_script, parse_script

    if script is None:
        return None
    checked = load_script(_path(script)) if isinstance(script, str) else parse_script(script)
    return checked.model_dump(mode="json")


def _needs_sim(flow: Flow, llmhub: RuntimeConfig | None, embedder: str | None) -> bool:
    if llmhub is not None:
        return needs_sim(flow, llmhub, embedder)
    for name, spec in flow.nodes.items():
        for node in all_nodes([spec]):
            if node.prompt or agent_operation(node):
                what = "a prompt" if node.prompt else "agents"
                raise AppInvalid(f"node '{name}' has {what}: name an llmhub.yaml (`llmhub:` under args)")
    if roles := sorted(embedders_of(flow.nodes.values(), embedder)):
        raise AppInvalid(
            f"'{roles[0]}' embeds queries: name an llmhub.yaml that says who that is (`llmhub:` under args)"
        )
    return False


def _path(name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise AppInvalid(f"there is no file {name} (looked from {Path.cwd()}); start where the path holds")
    return path
