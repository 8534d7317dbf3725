"""A flow's objects as the calls that declare them in generated code."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any, cast

from pydantic import BaseModel

from agentflow.compile.layout import Group, Tree, call
from agentflow.compile.literals import literal, text
from agentflow.ir import Code, Declarative, InputField, Node, Port
from agentflow.planning import Plan
from agentflow.wiring import REQUEST, Wire

_APART = frozenset({"id", "position", "inputs", "outputs", "transform"})
_FIRST = ("description", "type", "flow", "prompt", "transform")


def declared_node(plan: Plan, name: str) -> Group:
    """`node(...)`: the node's ports, the edges into them, and its work."""
    node = plan.node(name)
    wires = plan.graph.incoming.get(name, ())
    parts: dict[str, Tree] = {}
    if node.inputs:
        parts["inputs"] = _tuple(_port(port, (w for w in wires if w.target_port == port.name)) for port in node.inputs)
    if node.outputs:
        parts["outputs"] = _tuple(_port(port, ()) for port in node.outputs)
    others = _fields(node, leaving_out=_APART)
    if node.transform is not None:
        others["transform"] = _transform(node.transform)
    first = {key: others.pop(key) for key in _FIRST if key in others}
    return call("node", text(name), **parts, **first, **others)


def declared_flow(plan: Plan) -> Group:
    """`flow_facts(...)`: everything of the flow but its nodes, and the edges into the answer."""
    facts = _fields(plan.flow, leaving_out=frozenset({"version", "nodes", "edges", "tests"}))
    answer = [_edge(wire, into=wire.target_port) for wire in plan.graph.incoming.get(None, ())]
    if answer:
        facts["answer"] = _tuple(answer)
    return call("flow_facts", **facts, fingerprint=text(plan.fingerprint))


def _port(port: Port, wires: Iterable[Wire]) -> Tree:
    named: dict[str, Tree] = {}
    if port.optional:
        named["optional"] = literal(True)
    if port.json_schema is not None:
        named["schema"] = literal(port.json_schema)
    if port.description is not None:
        named["description"] = literal(port.description)
    return call("port", text(port.name), text(port.type.value), *(_edge(wire) for wire in wires), **named)


def _edge(wire: Wire, *, into: str | None = None) -> Tree:
    source = f"{wire.source or REQUEST}.{wire.source_port}" if wire.source_port else REQUEST
    named = {"into": into, "when": wire.condition.source if wire.condition else None}
    given = {key: literal(value) for key, value in named.items() if value is not None}
    return call("edge", literal(wire.index), text(source), **given)


def _transform(transform: Code | Declarative) -> Tree:
    match transform:
        case Declarative(spec=spec):
            return call("operation", text(spec.op), *([literal(spec.args)] if spec.args else []))
        case Code(spec=str() as source):
            return call("code", text(source))
        case Code(module=module):
            return call("installed", literal(module))


def _object(value: BaseModel) -> Tree:
    leaving_out = frozenset({"id", "position"}) if isinstance(value, Node) else frozenset({"tests"})
    return call(f"ir.{type(value).__name__}", **_fields(value, leaving_out=leaving_out))


def _fields(value: BaseModel, *, leaving_out: frozenset[str]) -> dict[str, Tree]:
    """The fields that say something: those that do not only repeat a default."""
    told: dict[str, Tree] = {}
    for name, info in type(value).model_fields.items():
        if name in leaving_out:
            continue
        given = getattr(value, name)
        if given != info.get_default(call_default_factory=True) or _is_null_default(value, name):
            told[name] = _value(given)
    return told


def _is_null_default(value: BaseModel, name: str) -> bool:
    """A default of null is not the same as none."""
    return isinstance(value, InputField) and name == "default" and value.has_default


def _value(value: Any) -> Tree:
    match value:
        case BaseModel():
            return _object(value)
        case Enum():
            return literal(value.value)
        case tuple():
            return _tuple(_value(each) for each in cast("tuple[Any, ...]", value))
        case list():
            return Group("[", tuple(("", _value(each)) for each in cast("list[Any]", value)), "]")
        case dict() if any(isinstance(each, BaseModel) for each in cast("dict[str, Any]", value).values()):
            items = cast("dict[str, Any]", value).items()
            return Group("{", tuple((f"{_key(key)}: ", _value(each)) for key, each in items), "}")
        case _:
            return literal(value)


def _key(name: str) -> str:
    return f'"{name}"'


def _tuple(items: Iterable[Tree]) -> Group:
    return Group("(", tuple(("", each) for each in items), ")")
