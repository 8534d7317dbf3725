"""From a checked flow to what runs: the needed nodes, their graph, their settings and the flow's signature."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agentflow.fingerprint import fingerprint
from agentflow.garbage import garbage_collection_paused
from agentflow.graph import Graph, GraphNode, InputPort
from agentflow.ir import Code, Declarative, Flow, Node
from agentflow.needed import needed_nodes
from agentflow.operations import has_side_effect
from agentflow.settings import NodeSettings, node_settings
from agentflow.signature import FlowField, Signature
from agentflow.tools import reached_tools, registered_tools, tool_nodes, with_callers
from agentflow.types import PortType
from agentflow.wiring import Wire, request_fields, resolve_wires


@dataclass(frozen=True, slots=True)
class Plan:
    """A flow ready to run. `graph` holds the needed nodes only; a run is pinned to `fingerprint`.

    `tools` are the nodes that prompts of the graph, or of each other, call as tools; the graph does not have them.
    """

    flow: Flow
    fingerprint: str
    graph: Graph
    settings: Mapping[str, NodeSettings]
    signature: Signature
    tools: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.flow.metadata.name

    def node(self, node: str) -> Node:
        return self.flow.nodes[node]


def plan(flow: Flow) -> Plan:
    """Plan a flow that `agentflow.checks` found no error in; cost grows linearly with nodes and edges."""
    with garbage_collection_paused():
        return _plan(flow)


def _plan(flow: Flow) -> Plan:
    wires, _ = resolve_wires(flow)
    effects = acting_nodes(flow)
    needed = needed_nodes(wires, effects - tool_nodes(flow))
    tools = reached_tools(flow, needed)
    fields = request_fields(flow)
    return Plan(
        flow=flow,
        fingerprint=fingerprint(flow),
        graph=Graph(
            nodes={
                name: GraphNode(
                    id=name,
                    inputs=tuple(InputPort(port.name, port.type, port.optional) for port in node.inputs),
                    repeatable=name not in effects if node.runtime.idempotent is None else node.runtime.idempotent,
                )
                for name, node in flow.nodes.items()
                if name in needed
            },
            wires=tuple(wire for wire in wires if wire.target is None or wire.target in needed),
        ),
        settings={
            name: node_settings(flow, node, context_names=fields)
            for name, node in flow.nodes.items()
            if name in needed or name in tools
        },
        signature=_signature(flow, wires),
        tools=tuple(name for name in flow.nodes if name in tools),
    )


def acting_nodes(flow: Flow) -> frozenset[str]:
    """The nodes that act, and those whose prompts may let them act as tools."""
    return with_callers(flow, (name for name, node in flow.nodes.items() if acts(node)))


def acts(node: Node) -> bool:
    """Whether a node does something beyond its outputs, so that it runs although no answer needs it (IR.md Q39)."""
    if registered_tools(node):
        return True
    if node.state is not None and node.state.scope == "session":
        return True
    if isinstance(node.flow, Flow):
        return any(acts(inner) for inner in node.flow.nodes.values())
    match node.transform:
        case Code():
            return True
        case Declarative(spec=spec):
            return has_side_effect(spec.op)
        case None:
            return False


def signature_of(flow: Flow) -> Signature:
    """What a flow takes and gives; edges that lead nowhere are left out."""
    return _signature(flow, resolve_wires(flow)[0])


def _signature(flow: Flow, wires: Iterable[Wire]) -> Signature:
    optional = set(flow.context.optional)
    fields: dict[str, FlowField] = {}
    for name in (*flow.context.requires, *flow.context.optional, *flow.inputs):
        declared = flow.inputs.get(name)
        fields[name] = FlowField(
            name=name,
            type=declared.type if declared else None,
            schema=declared.json_schema if declared else None,
            required=name not in optional and not (declared and declared.has_default),
            has_default=bool(declared and declared.has_default),
            default=declared.default if declared else None,
        )
    return Signature(inputs=tuple(fields.values()), outputs=_outputs(flow, wires))


def _outputs(flow: Flow, wires: Iterable[Wire]) -> tuple[FlowField, ...]:
    if flow.outputs:
        return tuple(
            FlowField(name=name, type=declared.type, schema=declared.json_schema)
            for name, declared in flow.outputs.items()
        )
    named: dict[str, set[PortType | None]] = {}
    for wire in wires:
        if wire.target is None and wire.target_port is not None:
            named.setdefault(wire.target_port, set()).add(wire.source_type)
    return tuple(FlowField(name=name, type=_common(types), required=False) for name, types in named.items())


def _common(types: set[PortType | None]) -> PortType | None:
    """The type of an output that several edges may make: None where they differ."""
    return next(iter(types)) if len(types) == 1 else None
