"""Which prompts remember, and whose turns each of them sees.

A turn is what a prompt asked and what the model answered. A node with `memory: run` sees the turns of its ancestors
in this run, whatever their own memory is; one with `memory: session` also those of earlier runs of the session, and
only its own turns are kept for later runs. A subflow's run is a run of its own: as a node it counts as `session` if a
prompt in it does, and gives on the turns of those prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from agentflow.graph import Graph
from agentflow.ir import Flow, Node
from agentflow.levels import topological

Remembers = Literal["none", "run", "session"]


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """`sees` has the nodes that remember, each with the prompts above it in topological order; `keeps` those whose
    turns the session gets, in that order too. Both are empty for a flow in which nobody remembers.
    """

    sees: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    keeps: tuple[str, ...] = ()


def memory_plan(flow: Flow, graph: Graph) -> MemoryPlan:
    """The memory of a flow's nodes; the cost is linear for each that remembers."""
    remembering = {name: remembers(flow.nodes[name]) for name in graph.nodes}
    if all(kind == "none" for kind in remembering.values()):
        return MemoryPlan()
    order = topological(graph)
    speakers = [node for node in order if flow.nodes[node].prompt is not None or remembering[node] != "none"]
    sees: dict[str, tuple[str, ...]] = {}
    for node in speakers:
        if remembering[node] != "none":
            above = _ancestors(graph, node)
            sees[node] = tuple(name for name in speakers if name in above)
    return MemoryPlan(sees=sees, keeps=tuple(node for node in speakers if remembering[node] == "session"))


def _ancestors(graph: Graph, node: str) -> set[str]:
    found: set[str] = set()
    pending = [node]
    while pending:
        for wire in graph.incoming.get(pending.pop(), ()):
            if wire.source is not None and wire.source not in found:
                found.add(wire.source)
                pending.append(wire.source)
    return found


def remembers(node: Node) -> Remembers:
    """What a node remembers; a subflow remembers the session if a prompt in it does, and else nothing."""
    if isinstance(node.flow, Flow):
        return "session" if any(remembers(inner) == "session" for inner in node.flow.nodes.values()) else "none"
    return node.prompt.memory if node.prompt is not None else "none"
