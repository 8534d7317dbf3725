"""Which nodes the prompts of a flow call as tools: such a node runs when a model asks for it, never by itself (Q34)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from agentflow.agent_use import agent_tools
from agentflow.ir import Flow, Node

DEFAULT_TOOL_ROUNDS = 8


def called_tools(node: Node) -> tuple[str, ...]:
    """The nodes that a node's prompt may call, each once."""
    tools = node.prompt.tools if node.prompt else ()
    return tuple(dict.fromkeys(tool.maps_to for tool in tools if tool.maps_to is not None))


def registered_tools(node: Node) -> tuple[str, ...]:
    """The tools of a node's prompt and of its agents that are no nodes but installed code."""
    asked = tuple(tool.name for tool in node.prompt.tools if tool.maps_to is None) if node.prompt else ()
    return tuple(dict.fromkeys((*asked, *agent_tools(node))))


def tool_nodes(flow: Flow) -> frozenset[str]:
    """Every node that some prompt calls."""
    return frozenset(tool for node in flow.nodes.values() for tool in called_tools(node))


def reached_tools(
    flow: Flow, start: Iterable[str], *, through: Callable[[str], bool] = lambda tool: True
) -> dict[str, None]:
    """The tool nodes that these nodes may call, and what those may call, as long as it is `through` them."""
    reached: dict[str, None] = {}
    pending = list(start)
    while pending:
        for tool in called_tools(flow.nodes[pending.pop()]):
            if tool in flow.nodes and tool not in reached:
                reached[tool] = None
                if through(tool):
                    pending.append(tool)
    return reached


def with_callers(flow: Flow, nodes: Iterable[str]) -> frozenset[str]:
    """These nodes and all that may call them as tools, directly or through other tools."""
    callers: dict[str, list[str]] = {}
    for name, node in flow.nodes.items():
        for tool in called_tools(node):
            callers.setdefault(tool, []).append(name)
    found: set[str] = set()
    pending = list(nodes)
    while pending:
        if (node := pending.pop()) not in found:
            found.add(node)
            pending += callers.get(node, ())
    return frozenset(found)
