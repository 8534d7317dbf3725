"""What the edges of a flow join: `node.port` text resolved to nodes, ports and types (IR.md Q7, Q8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from agentflow.errors import ExpressionError
from agentflow.expressions import Expression, compile_expression
from agentflow.findings import Finding, PathStep
from agentflow.ir import Edge, Flow, Node
from agentflow.types import PortType, compatible

REQUEST = "_input"
ANSWER = "_output"
BUILT_IN_FIELDS = frozenset({"trace_id", "event_time"})


class Condition(Protocol):
    """What decides whether a wire carries its value: in a flow an Expression, in another program's graph its own."""

    @property
    def source(self) -> str:
        """Its text, for people."""
        ...

    @property
    def context_fields(self) -> frozenset[str]: ...

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """Raises ExpressionFailed, which ends the run."""
        ...


@dataclass(frozen=True, slots=True)
class Wire:
    """One edge, resolved.

    `source` is None for the request and `target` is None for the answer. `source_port` is an output or
    error port, or a request field (None: the whole request); `target_port` is an input port, or a name in
    the answer (None: the whole answer). `condition` sees the source's value under `value_name` and `value`.
    """

    index: int
    source: str | None
    source_port: str | None
    target: str | None
    target_port: str | None
    from_error: bool = False
    condition: Condition | None = None
    source_type: PortType | None = None
    target_type: PortType | None = None

    @property
    def value_name(self) -> str:
        return self.source_port or "value"


def request_fields(flow: Flow) -> frozenset[str]:
    """Every request field that the flow names, and those that are always there (IR.md Q13)."""
    return BUILT_IN_FIELDS.union(flow.context.requires, flow.context.optional, flow.inputs)


def resolve_wires(flow: Flow) -> tuple[tuple[Wire, ...], tuple[Finding, ...]]:
    """The wires of a flow in the order of its edge list, and what is wrong with the edges left out."""
    resolver = _Resolver(flow)
    wires = [wire for index, edge in enumerate(flow.edges) if (wire := resolver.wire(index, edge))]
    return tuple(wires), tuple(resolver.findings)


@dataclass(frozen=True, slots=True)
class _End:
    node: str | None
    port: str | None
    type: PortType | None = None
    is_error: bool = False


class _Resolver:
    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.fields = request_fields(flow)
        self.findings: list[Finding] = []

    def wire(self, index: int, edge: Edge) -> Wire | None:
        source = self._source(index, edge.source)
        target = self._target(index, edge.target)
        condition = self._condition(index, edge)
        if edge.transform is not None:
            self._report(
                index,
                "transform",
                "edge-transform",
                "an edge cannot transform its value yet",
                "put a node with a transform.* operation between the two",
            )
        if source is None or target is None:
            return None
        if not compatible(source.type, target.type):
            self._report(
                index,
                "to",
                "type-mismatch",
                f"{edge.source} is {source.type} but {edge.target} takes {target.type}",
                "change one port's type, or put a node between them that converts the value",
            )
        return Wire(
            index=index,
            source=source.node,
            source_port=source.port,
            target=target.node,
            target_port=target.port,
            from_error=source.is_error,
            condition=condition,
            source_type=source.type,
            target_type=target.type,
        )

    def _source(self, index: int, text: str) -> _End | None:
        name, dot, port = text.partition(".")
        if dot and not port:
            return self._no_port(index, "from", text)
        if name == REQUEST:
            return self._request_field(index, port)
        node = self._node(index, "from", name, port, text)
        if node is None:
            return None
        if node.error is not None and port == node.error.name:
            return _End(name, port, PortType.OBJECT, is_error=True)
        types = {output.name: output.type for output in node.outputs}
        port = self._port(index, "from", name, port, list(types), "output")
        return None if port is None else _End(name, port, types[port])

    def _target(self, index: int, text: str) -> _End | None:
        name, dot, port = text.partition(".")
        if dot and not port:
            return self._no_port(index, "to", text)
        if name == ANSWER:
            return self._answer_part(index, port)
        node = self._node(index, "to", name, port, text)
        if node is None:
            return None
        types = {entry.name: entry.type for entry in node.inputs}
        port = self._port(index, "to", name, port, list(types), "input")
        return None if port is None else _End(name, port, types[port])

    def _request_field(self, index: int, field: str) -> _End | None:
        if not field:
            return _End(None, None, PortType.OBJECT)
        if field not in self.fields:
            self._report(
                index,
                "from",
                "unknown-request-field",
                f"the request has no field '{field}'",
                "list it under context.requires or context.optional",
            )
            return None
        declared = self.flow.inputs.get(field)
        return _End(None, field, declared.type if declared else None)

    def _answer_part(self, index: int, name: str) -> _End | None:
        if not name:
            return _End(None, None)
        declared = self.flow.outputs.get(name)
        if self.flow.outputs and declared is None:
            known = ", ".join(self.flow.outputs)
            self._report(
                index, "to", "unknown-output", f"the flow declares no output '{name}'", f"its outputs are: {known}"
            )
            return None
        return _End(None, name, declared.type if declared else None)

    def _node(self, index: int, side: str, name: str, port: str, text: str) -> Node | None:
        node = self.flow.nodes.get(name)
        if node is None:
            nearest = ", ".join(self.flow.nodes) if len(self.flow.nodes) <= 12 else f"{len(self.flow.nodes)} nodes"
            self._report(
                index, side, "unknown-node", f"'{text}' names no node of this flow", f"the flow has: {nearest}"
            )
        return node

    def _port(self, index: int, side: str, node: str, port: str, ports: list[str], kind: str) -> str | None:
        if port in ports:
            return port
        known = ", ".join(ports) or "none"
        if port:
            message, hint = f"node '{node}' has no {kind} port '{port}'", f"its {kind} ports: {known}"
            self._report(index, side, "unknown-port", message, hint)
            return None
        if len(ports) == 1:
            return ports[0]
        self._report(
            index,
            side,
            "ambiguous-port",
            f"'{node}' alone is not enough: the node has {len(ports)} {kind} ports",
            f"write one of: {', '.join(f'{node}.{name}' for name in ports) or 'none'}",
        )
        return None

    def _no_port(self, index: int, side: str, text: str) -> None:
        hint = "write node.port, or the node alone"
        self._report(index, side, "unknown-port", f"'{text}' names no port behind the dot", hint)

    def _condition(self, index: int, edge: Edge) -> Expression | None:
        if edge.condition is None:
            return None
        name, _, port = edge.source.partition(".")
        node = self.flow.nodes.get(name)
        outputs = [output.name for output in node.outputs] if node else []
        names = {"value", "context"} | ({port} if port else set(outputs if len(outputs) == 1 else ()))
        try:
            return compile_expression(edge.condition, names)
        except ExpressionError as exc:
            self._report(index, "condition", "bad-condition", str(exc), "a condition is a Python comparison")
            return None

    def _report(self, index: int, key: str, code: str, message: str, hint: str) -> None:
        path: tuple[PathStep, ...] = ("edges", index, key)
        self.findings.append(Finding(code=code, message=message, hint=hint, path=path))
