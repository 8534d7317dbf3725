"""Subflows: nodes whose work is another flow, with ports that are its request fields and its answer."""

from __future__ import annotations

from agentflow.checks.scope import Findings, Scope, at_node, listed
from agentflow.ir import Flow, Node
from agentflow.planning import signature_of
from agentflow.signature import Signature
from agentflow.types import PortType, compatible


def check_subflows(scope: Scope) -> Findings:
    """How the nodes fit their subflows. What is wrong inside a subflow is found by checking it like any flow."""
    for name, node in scope.flow.nodes.items():
        if node.type != "subflow":
            if node.flow is not None:
                message = f"node '{name}' names a flow but is no subflow"
                yield at_node(
                    "bad-subflow", message, "write type: subflow, or remove the flow", node=name, at=("flow",)
                )
            continue
        if not isinstance(node.flow, Flow):
            what = "names no flow" if node.flow is None else "was not loaded with its flow"
            hint = "give it a flow: the path of a file, or the flow itself"
            yield at_node("bad-subflow", f"the subflow '{name}' {what}", hint, node=name)
            continue
        for key in ("prompt", "transform", "state"):
            if getattr(node, key) is not None:
                message = f"the subflow '{name}' also has '{key}', which nothing would run"
                yield at_node("bad-subflow", message, "put it into a node of its own", node=name, at=(key,))
        signature = signature_of(node.flow)
        yield from _inputs(name, node, signature)
        yield from _outputs(name, node, signature)


def _inputs(name: str, node: Node, signature: Signature) -> Findings:
    fields = {field.name: field for field in signature.inputs}
    for index, port in enumerate(node.inputs):
        at = ("inputs", index)
        field = fields.get(port.name)
        is_element = node.for_each is not None and node.for_each.input == port.name
        if field is None:
            hint = f"its fields are: {listed(fields) or 'none'}"
            message = f"the flow of '{name}' has no request field '{port.name}'"
            yield at_node("subflow-port", message, hint, node=name, at=at)
        elif not is_element and not compatible(port.type, field.type):
            message = f"'{name}.{port.name}' is {port.type}, but its flow takes {field.type}"
            yield at_node("subflow-port", message, "change one of the types", node=name, at=at)
        elif field.required and port.optional:
            message = f"'{name}.{port.name}' is optional, but its flow requires it"
            yield at_node("subflow-port", message, "make both required, or both optional", node=name, at=at)
    missing = [field.name for field in fields.values() if field.required and field.name not in _names(node)]
    if missing:
        message = f"the flow of '{name}' requires {listed(missing)}, for which the node has no input port"
        yield at_node("subflow-port", message, "add the port, and an edge to it", node=name, at=("inputs",))


def _names(node: Node) -> set[str]:
    return {port.name for port in node.inputs} | {"trace_id", "event_time"}


def _outputs(name: str, node: Node, signature: Signature) -> Findings:
    """An answer in named parts goes to the ports of their names, or whole to a single port of another name."""
    parts = {field.name: field.type for field in signature.outputs}
    if not parts:
        return
    takes_whole = len(node.outputs) == 1 and parts.keys() != {node.outputs[0].name}
    for index, port in enumerate(node.outputs):
        at = ("outputs", index)
        if not takes_whole and port.name not in parts:
            hint = f"its outputs are: {listed(parts)}"
            message = f"the flow of '{name}' has no output '{port.name}'"
            yield at_node("subflow-port", message, hint, node=name, at=at)
            continue
        made = PortType.OBJECT if takes_whole else parts[port.name]
        if node.for_each is None and not compatible(made, port.type):
            message = f"the flow of '{name}' makes {made}, but '{name}.{port.name}' is {port.type}"
            yield at_node("subflow-port", message, "change one of the types", node=name, at=at)
