"""Nodes that run several times in one run: once per element (`for_each`), or round after round (`loop`)."""

from __future__ import annotations

from agentflow.checks.scope import CONTEXT, Findings, Scope, at_node, listed, unknown_field
from agentflow.errors import ExpressionError
from agentflow.expressions import compile_expression
from agentflow.ir import ForEach, Loop, Node
from agentflow.types import PortType, compatible

ARRAYS = frozenset({PortType.ARRAY, PortType.TABLE, PortType.EMBEDDING})


def check_repeats(scope: Scope) -> Findings:
    """Findings about `for_each` and `loop` of all nodes."""
    for name, node in scope.flow.nodes.items():
        if node.for_each is not None:
            yield from _for_each(name, node, node.for_each)
        if node.loop is not None:
            yield from _until(scope, name, node, node.loop)
            yield from _fed_ports(name, node)


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


def _until(scope: Scope, name: str, node: Node, loop: Loop) -> Findings:
    path = ("nodes", name, "loop", "until")
    try:
        until = compile_expression(loop.until, {*(port.name for port in node.outputs), CONTEXT})
    except ExpressionError as exc:
        hint = "until sees the node's output ports and context"
        yield at_node("bad-loop", str(exc), hint, node=name, at=path[2:])
        return
    for field in sorted(until.context_fields - scope.fields):
        yield unknown_field(scope, field, path)


def _fed_ports(name: str, node: Node) -> Findings:
    """An output feeds the input of its name in the next round; with for_each its type is not that of one element."""
    inputs = {port.name: port.type for port in node.inputs}
    for index, port in enumerate(node.outputs):
        wanted = inputs.get(port.name)
        if node.for_each is None and not compatible(port.type, wanted):
            message = f"the loop feeds '{port.name}' back, but the output is {port.type} and the input takes {wanted}"
            hint = "give both one type, or rename one of them"
            yield at_node("bad-loop", message, hint, node=name, at=("outputs", index, "type"))
