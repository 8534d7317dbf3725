"""The agents of agent.* operations: where they stand among the arguments, and what may be said of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, cast

from agentflow.findings import PathStep
from agentflow.ir import Declarative, Node, OperationSpec

AGENT_ARGS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "agent.run": ("agent",),
        "agent.chain": ("agents",),
        "agent.parallel": ("agents",),
        "agent.map_reduce": ("map", "reduce"),
        "agent.plan_execute": ("planner", "executor", "synthesizer"),
        "agent.debate": ("debaters", "moderator"),
    }
)
"""The arguments of each operation that hold agents."""
LISTS = frozenset({"agents", "debaters"})
"""Those that hold a list of them."""
AGENT_KEYS = frozenset({"role", "name", "system", "tools", "max_turns", "temperature", "max_tokens"})
LIMIT_KEYS = frozenset({"max_child_jobs", "max_depth", "timeout_seconds", "parallel_execution", "max_parallel"})
BUDGET_KEYS = frozenset({"max_tokens", "max_cost", "max_tool_calls", "max_turns", "max_runtime_seconds"})


def agent_operation(node: Node) -> OperationSpec | None:
    """The node's operation if it runs agents."""
    spec = node.transform.spec if isinstance(node.transform, Declarative) else None
    return spec if spec is not None and spec.op in AGENT_ARGS else None


def agents_in(spec: OperationSpec) -> Iterator[tuple[tuple[PathStep, ...], Any]]:
    """What the flow says of each agent, with its place among the arguments. A text alone is a role."""
    for argument in AGENT_ARGS.get(spec.op, ()):
        value = spec.args.get(argument)
        if argument in LISTS and isinstance(value, list):
            for index, entry in enumerate(cast("list[Any]", value)):
                yield (argument, index), entry
        elif argument in spec.args:
            yield (argument,), value


def role_in(agent: Any) -> str | None:
    role = cast("Mapping[str, Any]", agent).get("role") if isinstance(agent, Mapping) else agent
    return role if isinstance(role, str) else None


def agent_roles(node: Node) -> frozenset[str]:
    """The roles that the node's agents are played by."""
    spec = agent_operation(node)
    roles = (role_in(agent) for _, agent in agents_in(spec)) if spec is not None else ()
    return frozenset(role for role in roles if role)


def agent_tools(node: Node) -> tuple[str, ...]:
    """The installed tools that the node's agents may call."""
    spec = agent_operation(node)
    found: dict[str, None] = {}
    for _, agent in agents_in(spec) if spec is not None else ():
        tools = cast("Mapping[str, Any]", agent).get("tools") if isinstance(agent, Mapping) else None
        if isinstance(tools, list):
            found |= {tool: None for tool in cast("list[Any]", tools) if isinstance(tool, str)}
    return tuple(found)
