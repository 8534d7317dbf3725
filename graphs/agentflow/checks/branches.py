"""Which nodes run in the same runs: the ground for saying that two edges are always live together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agentflow.graph import Graph, GraphNode, InputPort
from agentflow.ir import Flow
from agentflow.levels import topological
from agentflow.wiring import Wire


class Branches:
    """Marks every node with the branch it is on; failures are left aside.

    A node without a mark runs in every run. Otherwise nodes with equal marks run in the same runs: a node
    takes the mark of what feeds its required inputs, unless it joins branches or hangs on a fork, where it
    begins a branch of its own, like every node on or behind a cycle.
    """

    def __init__(self, flow: Flow, wires: Sequence[Wire]) -> None:
        self._flow = flow
        self._absent = {
            name for name in flow.context.optional if name not in flow.inputs or not flow.inputs[name].has_default
        }
        graph = _graph(flow, wires)
        ordered = topological(graph)
        self._marks = {name: name for name in flow.nodes.keys() - set(ordered)}
        for name in ordered:
            self._mark(graph, name)

    def is_fork(self, wire: Wire) -> bool:
        """Whether a wire may be dead although its source ran."""
        is_absent = wire.source is None and wire.source_port in self._absent
        return self._flow.edges[wire.index].condition is not None or wire.from_error or is_absent

    def of(self, wire: Wire) -> str | None:
        """The branch of a wire that is no fork; None when it is live in every run."""
        return self._marks.get(wire.source) if wire.source is not None else None

    def _mark(self, graph: Graph, name: str) -> None:
        required = {port.name for port in graph.nodes[name].inputs if not port.optional}
        wires = [wire for wire in graph.incoming.get(name, ()) if wire.target_port in required]
        is_merge = len({wire.target_port for wire in wires}) < len(wires)
        around = {branch for wire in wires if (branch := self.of(wire)) is not None}
        if is_merge or len(around) > 1 or any(map(self.is_fork, wires)):
            self._marks[name] = name
        elif around:
            self._marks[name] = around.pop()


def _graph(flow: Flow, wires: Sequence[Wire]) -> Graph:
    nodes: Mapping[str, GraphNode] = {
        name: GraphNode(name, tuple(InputPort(port.name, port.type, port.optional) for port in node.inputs))
        for name, node in flow.nodes.items()
    }
    return Graph(nodes=nodes, wires=tuple(wires))
