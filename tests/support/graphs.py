"""Small graphs for scheduler tests, written as `"a.out -> b.in"`."""

from __future__ import annotations

from collections.abc import Iterable

from agentflow.expressions import compile_expression
from agentflow.graph import Graph, GraphNode, InputPort
from agentflow.schedule import Command, Event, RunState, initial, step
from agentflow.wiring import Wire

PSEUDO = {"_input": None, "_output": None}


def wire(index: int, text: str) -> Wire:
    """`source[.port] -> target[.port] [if condition]`; a port named `err` is the error port."""
    joined, _, condition = text.partition(" if ")
    left, right = (end.strip().partition(".") for end in joined.split("->"))
    source, target = PSEUDO.get(left[0], left[0]), PSEUDO.get(right[0], right[0])
    source_port = left[2] or ("out" if source else None)
    target_port = right[2] or ("in" if target else None)
    return Wire(
        index=index,
        source=source,
        source_port=source_port,
        target=target,
        target_port=target_port,
        from_error=left[2] == "err",
        condition=compile_expression(condition, {"value", "context", source_port or "value"}) if condition else None,
    )


def graph(
    *edges: str, optional: Iterable[str] = (), unrepeatable: Iterable[str] = (), alone: Iterable[str] = ()
) -> Graph:
    """A graph of the nodes that the edges name; `optional` lists optional inputs as `node.port`."""
    wires = tuple(wire(index, text) for index, text in enumerate(edges))
    ports: dict[str, dict[str, InputPort]] = {node: {} for node in alone}
    for each in wires:
        for node in (each.source, each.target):
            if node is not None:
                ports.setdefault(node, {})
        if each.target is not None:
            name = each.target_port or ""
            is_optional = f"{each.target}.{name}" in set(optional)
            ports[each.target][name] = InputPort(name, optional=is_optional)
    nodes = {
        node: GraphNode(id=node, inputs=tuple(inputs.values()), repeatable=node not in set(unrepeatable))
        for node, inputs in ports.items()
    }
    return Graph(nodes=nodes, wires=wires)


def play(target: Graph, *events: Event) -> tuple[RunState, list[Command]]:
    """The state after the events, and the commands of the last one."""
    state, commands = initial(target), list[Command]()
    for event in events:
        state, commands = step(state, event)
    return state, commands
