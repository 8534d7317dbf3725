"""The words of a compiled flow: what a node is, what feeds it, and what the flow is as a whole.

They only collect what the scheduler runs. A node starts when every edge into it is settled; an edge is live when its
source made a value and its condition `when` holds; a node without a live edge into each port that is not optional is
skipped, and so is what only it feeds (IR.md Q10 to Q12, Q18 to Q20).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from agentflow import ir
from agentflow.graph import Graph
from agentflow.planning import Plan, plan
from agentflow.wiring import ANSWER

Method = TypeVar("Method", bound=Callable[..., Any])
DECLARED = "__agentflow_node__"


@dataclass(frozen=True, slots=True)
class DeclaredEdge:
    """`number` is its place in the flow's list of edges; `into` is a part of the answer."""

    number: int
    source: str
    into: str | None = None
    when: str | None = None

    def to(self, target: str) -> tuple[int, ir.Edge]:
        return self.number, ir.Edge.model_validate({"from": self.source, "to": target, "condition": self.when})


@dataclass(frozen=True, slots=True)
class DeclaredPort:
    port: ir.Port
    edges: tuple[DeclaredEdge, ...] = ()


@dataclass(frozen=True, slots=True)
class DeclaredNode:
    id: str
    node: ir.Node
    inputs: tuple[DeclaredPort, ...] = ()

    def edges(self) -> list[tuple[int, ir.Edge]]:
        return [edge.to(f"{self.id}.{port.port.name}") for port in self.inputs for edge in port.edges]


@dataclass(frozen=True, slots=True)
class FlowFacts:
    """All of a flow but its nodes. `fingerprint` is the flow file's: runs of both are runs of the same flow."""

    fingerprint: str
    answer: tuple[DeclaredEdge, ...]
    rest: Mapping[str, Any] = field(default_factory=dict[str, Any])


def edge(number: int, source: str, *, into: str | None = None, when: str | None = None) -> DeclaredEdge:
    """An edge of the flow, from `node.port` or `_input.field`, live only while the expression `when` holds."""
    return DeclaredEdge(number, source, into, when)


def port(
    name: str,
    type: str,
    *edges: DeclaredEdge,
    optional: bool = False,
    schema: ir.JsonSchema | None = None,
    description: str | None = None,
) -> DeclaredPort:
    """A port with the edges into it. Of several edges at most one may be live."""
    fields = {"name": name, "type": type, "optional": optional, "schema": schema, "description": description}
    return DeclaredPort(ir.Port.model_validate(fields), edges)


def operation(op: str, args: Mapping[str, Any] | None = None) -> ir.Declarative:
    """A declarative transform."""
    return ir.Declarative(mode="declarative", spec=ir.OperationSpec(op=op, args=dict(args or {})))


def code(source: str) -> ir.Code:
    """A transform that the flow carries as text; it runs where and as every code transform does."""
    return ir.Code(mode="code", spec=source)


def installed(module: str) -> ir.Code:
    """A transform that is installed code, `pkg.mod:name`."""
    return ir.Code(mode="code", module=module)


def node(
    id: str, *, inputs: tuple[DeclaredPort, ...] = (), outputs: tuple[DeclaredPort, ...] = (), **parts: Any
) -> Callable[[Method], Method]:
    """Declares a node whose work is the method below. `parts` are the other fields of a node in the flow file."""
    spec = ir.Node(inputs=tuple(each.port for each in inputs), outputs=tuple(each.port for each in outputs), **parts)
    declared = DeclaredNode(id, spec, inputs)

    def mark(method: Method) -> Method:
        setattr(method, DECLARED, declared)
        return method

    return mark


def flow_facts(*, fingerprint: str, answer: tuple[DeclaredEdge, ...] = (), **rest: Any) -> FlowFacts:
    """Declares the flow. `answer` are the edges into the answer in the flow's order; the first live one counts."""
    return FlowFacts(fingerprint, answer, rest)


def declared_in(cls: type) -> dict[str, DeclaredNode]:
    """The nodes that a class declares itself, in the order in which they stand there."""
    found = (getattr(value, DECLARED, None) for value in vars(cls).values())
    return {each.id: each for each in found if isinstance(each, DeclaredNode)}


def planned(facts: FlowFacts, nodes: Mapping[str, DeclaredNode]) -> Plan:
    """The plan of declared nodes: the same as that of the flow file, which may have had more that nothing needs."""
    numbered = [edge for declared in nodes.values() for edge in declared.edges()]
    numbered += [each.to(f"{ANSWER}.{each.into}" if each.into else ANSWER) for each in facts.answer]
    numbered.sort(key=lambda each: each[0])
    numbers = [number for number, _ in numbered]
    flow = ir.Flow(
        version="1.0",
        nodes={name: declared.node for name, declared in nodes.items()},
        edges=tuple(edge for _, edge in numbered),
        **facts.rest,
    )
    made = plan(flow)
    wires = tuple(replace(wire, index=numbers[wire.index]) for wire in made.graph.wires)
    return replace(made, graph=Graph(made.graph.nodes, wires), fingerprint=facts.fingerprint)
