"""What the edges make together: each required input has one value to wait for, and something answers."""

from __future__ import annotations

from collections.abc import Iterable

from agentflow.checks.branches import Branches
from agentflow.checks.scope import Findings, Scope, at_node, unknown_field
from agentflow.findings import Finding
from agentflow.ir import Flow
from agentflow.needed import needed_nodes
from agentflow.planning import acting_nodes
from agentflow.tools import reached_tools, tool_nodes
from agentflow.types import PortType
from agentflow.wiring import ANSWER, Wire


def check_inputs(scope: Scope) -> Findings:
    """Every input port that is not optional has an edge; a node that a model calls as a tool needs none."""
    fed = set(_fed_ports(scope.flow))
    tools = tool_nodes(scope.flow)
    for name, node in scope.flow.nodes.items():
        for index, port in enumerate(node.inputs):
            if port.optional or (name, port.name) in fed or (name, None) in fed or name in tools:
                continue
            yield at_node(
                "unwired-input",
                f"no edge leads to the required input '{name}.{port.name}', so node '{name}' can never run",
                "add an edge, or mark the port as optional",
                node=name,
                at=("inputs", index),
            )


def check_doubles(scope: Scope) -> Findings:
    """Two edges that are live in the same runs cannot share an input port (IR.md Q11)."""
    branches = Branches(scope.flow, scope.wires)
    taken: dict[tuple[str, str | None, str | None], Wire] = {}
    for wire in scope.wires:
        if wire.target is None or branches.is_fork(wire):
            continue
        first = taken.setdefault((wire.target, wire.target_port, branches.of(wire)), wire)
        if first is not wire:
            yield Finding(
                code="doubled-input",
                message=f"edges[{first.index}] and this edge always carry a value into "
                f"'{wire.target}.{wire.target_port}' at once; only one may",
                hint="give them conditions that exclude each other, or wire them to two ports",
                path=("edges", wire.index),
            )


def check_conditions(scope: Scope) -> Findings:
    """Conditions read only request fields that the flow has."""
    for wire in scope.wires:
        if wire.condition is not None:
            for field in sorted(wire.condition.context_fields - scope.fields):
                yield unknown_field(scope, field, ("edges", wire.index, "condition"))


def check_answer(scope: Scope) -> Findings:
    """The flow answers, and in one form: one value, or an object of named parts."""
    answers = [
        (index, _port_of(edge.target))
        for index, edge in enumerate(scope.flow.edges)
        if edge.target.partition(".")[0] == ANSWER
    ]
    if not answers:
        yield Finding(
            code="no-output",
            message="no edge leads to _output, so the flow never answers",
            hint="add an edge from the node that makes the answer to _output",
            path=("edges",),
        )
    whole = [index for index, name in answers if name is None]
    named = [index for index, name in answers if name is not None]
    if whole and named:
        yield Finding(
            code="mixed-outputs",
            message="edges to _output and edges to _output.<name> cannot be mixed",
            hint="an answer is either one value, or an object of named parts",
            path=("edges", max(whole[0], named[0])),
        )
    if answers and not whole:
        yield from _undelivered(scope.flow, {name for _, name in answers if name is not None})
    yield from _shapeless(scope)


def check_use(scope: Scope) -> Findings:
    """Warnings: nodes that are never run, and failures that nobody handles. A broken edge could be what is missed."""
    if len(scope.wires) < len(scope.flow.edges):
        return
    tools = tool_nodes(scope.flow)
    needed = needed_nodes(scope.wires, acting_nodes(scope.flow) - tools)
    needed |= reached_tools(scope.flow, needed).keys()
    handled = {wire.source for wire in scope.wires if wire.from_error}
    for name, node in scope.flow.nodes.items():
        if name not in needed:
            message = f"nothing needs node '{name}', so it never runs: it does not lead to _output or act"
            yield at_node("unneeded-node", message, "wire it up or remove it", node=name, severity="warning")
        if node.error is not None and name in tools:
            message = f"node '{name}' runs as a tool, so a failure is told to the model and not to its error port"
            yield at_node("unwired-error", message, "remove it", node=name, at=("error",), severity="warning")
        elif node.error is not None and name not in handled:
            yield at_node(
                "unwired-error",
                f"the error port '{name}.{node.error.name}' leads nowhere, so a failure still ends the run",
                "wire it to a handler, or remove it",
                node=name,
                at=("error",),
                severity="warning",
            )


def _fed_ports(flow: Flow) -> Iterable[tuple[str, str | None]]:
    """What the edges aim at, whether or not the rest of the edge is right. None: the node's only input."""
    for edge in flow.edges:
        node, _, port = edge.target.partition(".")
        yield node, port or None


def _port_of(target: str) -> str | None:
    return target.partition(".")[2] or None


def _undelivered(flow: Flow, delivered: set[str]) -> Findings:
    for name in flow.outputs:
        if name not in delivered:
            yield Finding(
                code="undelivered-output",
                message=f"the flow declares the output '{name}', but no edge leads to _output.{name}",
                hint="add that edge, or remove the output",
                path=("outputs", name),
            )


def _shapeless(scope: Scope) -> Findings:
    """A whole answer that has to hold several declared outputs must be an object."""
    if len(scope.flow.outputs) < 2:
        return
    for wire in scope.wires:
        if wire.target is None and wire.target_port is None and wire.source_type not in (None, PortType.OBJECT):
            yield Finding(
                code="type-mismatch",
                message=f"the flow declares {len(scope.flow.outputs)} outputs, so what goes to _output "
                f"must be an object; {scope.flow.edges[wire.index].source} is {wire.source_type}",
                hint=f"wire it to one of: {', '.join(f'_output.{name}' for name in scope.flow.outputs)}",
                path=("edges", wire.index, "to"),
            )
