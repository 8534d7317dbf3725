"""The flows inside a flow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agentflow.ir import Flow, Node


def all_flows(flow: Flow) -> Iterator[Flow]:
    """A flow, then every subflow in it, however deep."""
    yield flow
    for node in flow.nodes.values():
        if isinstance(node.flow, Flow):
            yield from all_flows(node.flow)


def all_nodes(nodes: Iterable[Node]) -> Iterator[Node]:
    """Nodes, and those of their subflows, however deep."""
    for node in nodes:
        yield node
        if isinstance(node.flow, Flow):
            yield from all_nodes(node.flow.nodes.values())
