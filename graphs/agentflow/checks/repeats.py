"""Nodes that run several times in one run: once per element (`for_each`), or round after round (`loop`)."""

from __future__ import annotations

from agentflow.checks.scope import Findings, Scope, at_node, listed
from agentflow.ir import ForEach, Node
from agentflow.types import PortType

ARRAYS = frozenset({PortType.ARRAY, PortType.TABLE, PortType.EMBEDDING})


def check_repeats(scope: Scope) -> Findings:
    """Findings about `for_each` of all nodes."""
    for name, node in scope.flow.nodes.items():
        if node.for_each is not None:
            yield from _for_each(name, node, node.for_each)


def _for_each(name: str, node: Node, spec: ForEach) -> Findings:
    types = {port.name: port.type for port in node.inputs}
    at = ("for_each", "input")
    if spec.input not in types:
        hint = f"its input ports are: {listed(types) or 'none'}"
        yield at_node("bad-for-each", f"node '{name}' has no input port '{spec.input}'", hint, node=name, at=at)
    elif types[spec.input] not in ARRAYS:
        message = f"for_each goes through an array, and '{name}.{spec.input}' is {types[spec.input]}"
        yield at_node("bad-for-each", message, "make it array, table or embedding", node=name, at=at)
    for index, port in enumerate(node.outputs):
        if port.type != PortType.ARRAY:
            message = f"for_each makes an array of every output, and '{name}.{port.name}' is {port.type}"
            hint = "declare it as array; its schema is about the whole array"
            yield at_node("bad-for-each", message, hint, node=name, at=("outputs", index, "type"))
