"""The second question about a flow: do its parts make sense together? (`shapes` asks the first.)"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Unpack

from agentflow.checks.agents import check_agents
from agentflow.checks.budgets import check_budgets
from agentflow.checks.cache import check_caches
from agentflow.checks.cycles import check_cycles
from agentflow.checks.features import check_features
from agentflow.checks.flow_tests import check_tests
from agentflow.checks.graph import check_answer, check_conditions, check_doubles, check_inputs, check_use
from agentflow.checks.interface import check_deployment, check_fields, check_schemas
from agentflow.checks.memory import check_memory
from agentflow.checks.nodes import check_nodes, check_replicas
from agentflow.checks.prompts import check_prompts
from agentflow.checks.repeats import check_repeats
from agentflow.checks.scope import Scope, Surroundings
from agentflow.checks.state import check_state
from agentflow.checks.subflows import check_subflows
from agentflow.checks.tools import check_tools
from agentflow.checks.transforms import check_transforms
from agentflow.checks.unsupported import check_unsupported
from agentflow.findings import Finding, first_of
from agentflow.ir import Flow
from agentflow.operations import OPERATIONS
from agentflow.wiring import request_fields, resolve_wires

__all__ = ["Surroundings", "check"]

_CHECKS = (
    check_fields,
    check_nodes,
    check_inputs,
    check_prompts,
    check_memory,
    check_tools,
    check_transforms,
    check_features,
    check_agents,
    check_repeats,
    check_subflows,
    check_state,
    check_caches,
    check_schemas,
    check_conditions,
    check_doubles,
    check_cycles,
    check_answer,
    check_use,
    check_replicas,
    check_deployment,
    check_budgets,
    check_tests,
    check_unsupported,
)


def check(flow: Flow, **surroundings: Unpack[Surroundings]) -> tuple[Finding, ...]:
    """What is wrong (errors) or doubtful (warnings) about a flow, at once; of very many, the first (see `first_of`).

    See Surroundings for what may be passed. A flow without an error here can be planned and run. The cost
    is linear in the size of the flow.
    """
    return tuple(first_of(_all_of(flow, surroundings)))


def _all_of(flow: Flow, surroundings: Surroundings, *, is_subflow: bool = False) -> Iterator[Finding]:
    for name, node in flow.nodes.items():
        if isinstance(node.flow, Flow):
            for finding in _all_of(node.flow, surroundings, is_subflow=True):
                yield replace(finding, path=("nodes", name, "flow", *finding.path))
    wires, findings = resolve_wires(flow)
    yield from findings
    installed = {operation.name: operation for operation in surroundings.get("operations", ())}
    scope = Scope(
        flow=flow,
        wires=wires,
        fields=request_fields(flow),
        operations={**OPERATIONS, **installed},
        roles=surroundings.get("roles"),
        providers=surroundings.get("providers"),
        unpriced=surroundings.get("unpriced"),
        has_default_role=surroundings.get("has_default_role", False),
        has_embedder=surroundings.get("has_embedder"),
        is_subflow=is_subflow,
    )
    for find in _CHECKS:
        yield from find(scope)
