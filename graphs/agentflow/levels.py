"""The shape of a graph, for people: structural levels and the critical path. Nothing at run time waits for a level."""

from __future__ import annotations

from collections import deque

from agentflow.graph import Graph
from agentflow.planning import Plan


def levels(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """Nodes by the length of the longest path that leads to them."""
    depth = _longest(graph, dict.fromkeys(graph.nodes, 1))
    grouped: dict[int, list[str]] = {}
    for node in graph.nodes:
        grouped.setdefault(depth[node][0], []).append(node)
    return tuple(tuple(grouped[level]) for level in sorted(grouped))


def critical_path(plan: Plan) -> tuple[str, ...]:
    """The chain with the most model calls, and among those the one with the most nodes."""
    many = len(plan.graph.nodes) + 1
    weight = {node: many if plan.node(node).prompt else 1 for node in plan.graph.nodes}
    longest = _longest(plan.graph, weight)
    if not longest:
        return ()
    node: str | None = max(longest, key=lambda name: longest[name][0])
    path: list[str] = []
    while node is not None:
        path.append(node)
        node = longest[node][1]
    return tuple(reversed(path))


def topological(graph: Graph) -> tuple[str, ...]:
    """Every node after all that feed it; ties in the order of the flow file."""
    open_wires = {node: len(_sources(graph, node)) for node in graph.nodes}
    ready = deque(node for node, count in open_wires.items() if count == 0)
    order: list[str] = []
    while ready:
        node = ready.popleft()
        order.append(node)
        for target in dict.fromkeys(wire.target for wire in graph.outgoing.get(node, ())):
            if target is not None:
                open_wires[target] -= 1
                if open_wires[target] == 0:
                    ready.append(target)
    return tuple(order)


def _longest(graph: Graph, weight: dict[str, int]) -> dict[str, tuple[int, str | None]]:
    """Per node: the weight of the heaviest path that ends in it, and the node before it on that path."""
    best: dict[str, tuple[int, str | None]] = {}
    for node in topological(graph):
        before = max(_sources(graph, node), key=lambda name: best[name][0], default=None)
        best[node] = (weight[node] + (best[before][0] if before is not None else 0), before)
    return best


def _sources(graph: Graph, node: str) -> dict[str, None]:
    wires = graph.incoming.get(node, ())
    return dict.fromkeys(wire.source for wire in wires if wire.source is not None)
