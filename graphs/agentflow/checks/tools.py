"""Tools of prompts: names that a model can tell apart, nodes that only it calls, arguments that fit them (Q34)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from agentflow.checks.cycles import MAX_NAMED, cycles
from agentflow.checks.scope import Findings, Scope, at_node, listed
from agentflow.errors import SchemaInvalid
from agentflow.findings import Finding
from agentflow.ir import Declarative, JsonSchema, Node, PromptTool
from agentflow.operations import HANDLE_OPERATIONS
from agentflow.schemas import compile_schema
from agentflow.tools import called_tools
from agentflow.types import PortType

_JSON_TYPES: Mapping[PortType, frozenset[str]] = {
    PortType.STRING: frozenset({"string"}),
    PortType.DOCUMENT: frozenset({"string"}),
    PortType.NUMBER: frozenset({"number", "integer"}),
    PortType.BOOLEAN: frozenset({"boolean"}),
    PortType.OBJECT: frozenset({"object"}),
    PortType.ARRAY: frozenset({"array"}),
    PortType.TABLE: frozenset({"array"}),
    PortType.EMBEDDING: frozenset({"array"}),
}
_COMPOSED = ("$ref", "allOf", "anyOf", "oneOf", "not", "if", "patternProperties")


def check_tools(scope: Scope) -> Findings:
    """Findings about the tools of all prompts and about the nodes that run as tools."""
    for name, index, tool, is_double in _tools(scope):
        at = ("prompt", "tools", index)
        if is_double:
            message = f"the prompt of '{name}' has two tools named '{tool.name}'"
            yield at_node("duplicate-tool", message, "rename one of them", node=name, at=(*at, "name"))
        problems = [] if tool.parameters is None else list(_shape(tool.parameters))
        if tool.maps_to is not None and not problems:
            target = scope.flow.nodes.get(tool.maps_to)
            if target is None:
                message = f"the tool '{tool.name}' maps to '{tool.maps_to}', which is no node of this flow"
                hint = f"the flow has: {listed(scope.flow.nodes)}"
                yield at_node("unknown-node", message, hint, node=name, at=(*at, "maps_to"))
                continue
            problems = list(_fit(tool, target))
        for problem in problems:
            hint = "parameters is a JSON Schema with type: object and a property for each argument"
            yield at_node("bad-tool", f"the tool '{tool.name}' {problem}", hint, node=name, at=at)
    yield from _edges(scope)
    yield from _circles(scope)


def _tools(scope: Scope) -> Iterator[tuple[str, int, PromptTool, bool]]:
    """Every tool with its place, and whether an earlier one of the prompt has its name."""
    for name, node in scope.flow.nodes.items():
        seen: set[str] = set()
        for index, tool in enumerate(node.prompt.tools if node.prompt else ()):
            yield name, index, tool, tool.name in seen
            seen.add(tool.name)


def _shape(parameters: JsonSchema) -> Iterator[str]:
    """What keeps a schema from being one of arguments; a schema that is itself wrong has its own finding."""
    if parameters.get("type") != "object":
        yield "has parameters that are not of type: object"
    composed = [keyword for keyword in _COMPOSED if keyword in parameters]
    if composed:
        yield f"has parameters with {composed[0]} at the top, which models do not follow"
    if parameters.get("additionalProperties", False) is not False:
        yield "allows additionalProperties, so a model could give arguments that nobody listed"


def _fit(tool: PromptTool, target: Node) -> Iterator[str]:
    """How the arguments miss the input ports of the node that runs as the tool."""
    if isinstance(target.transform, Declarative) and target.transform.spec.op in HANDLE_OPERATIONS:
        yield f"maps to '{tool.maps_to}', whose result is a model and nothing that can be read"
    parameters = tool.parameters or {}
    if not _compiles(parameters):
        return
    properties = cast("dict[str, Any]", parameters.get("properties", {}))
    required = cast("list[str]", parameters.get("required", []))
    ports = {port.name: port for port in target.inputs}
    for name, schema in properties.items():
        if name not in ports:
            known = listed(ports) or "none"
            yield f"has the parameter '{name}', but '{tool.maps_to}' has no such input port; it has: {known}"
        elif (said := _said_type(schema)) is not None and said not in _JSON_TYPES[ports[name].type]:
            yield f"has the parameter '{name}' of type {said}, but '{tool.maps_to}.{name}' is {ports[name].type}"
    for port in target.inputs:
        if not port.optional and (port.name not in properties or port.name not in required):
            yield f"must require the parameter '{port.name}': '{tool.maps_to}' cannot run without that input"


def _compiles(schema: JsonSchema) -> bool:
    try:
        compile_schema(schema)
    except SchemaInvalid:
        return False
    return True


def _said_type(schema: Any) -> str | None:
    said = cast("dict[str, Any]", schema).get("type") if isinstance(schema, dict) else None
    return said if isinstance(said, str) else None


def _edges(scope: Scope) -> Findings:
    """A node that runs as a tool is reached in no other way (Q34)."""
    callers = {tool: name for name, node in scope.flow.nodes.items() for tool in called_tools(node)}
    for index, edge in enumerate(scope.flow.edges):
        for key, end, verb in (("from", edge.source, "starts at"), ("to", edge.target, "leads to")):
            node = end.partition(".")[0]
            if node in callers:
                message = f"this edge {verb} '{node}', which the prompt of '{callers[node]}' calls as a tool"
                hint = "a tool's inputs come from the model and its result goes back there; remove the edge"
                yield Finding("tool-node", message, hint, ("edges", index, key))


def _circles(scope: Scope) -> Findings:
    nodes = scope.flow.nodes
    targets = {name: [tool for tool in called_tools(node) if tool in nodes] for name, node in nodes.items()}
    for cycle in cycles(nodes, targets):
        last = cycle[-1]
        prompt = nodes[last].prompt
        assert prompt is not None
        index = next(index for index, tool in enumerate(prompt.tools) if tool.maps_to == cycle[0])
        named = [*cycle[:MAX_NAMED], "..."] if len(cycle) > MAX_NAMED else cycle
        message = f"these nodes call each other as tools: {' -> '.join([*named, cycle[0]])}"
        at = ("prompt", "tools", index, "maps_to")
        yield at_node("cycle", message, "remove one of these tools", node=last, at=at)
