"""What a flow asks of people, of installed code, of a feature store and of models, embedding ones included."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from agentflow.agent_use import agent_operation
from agentflow.errors import PlaceholderError
from agentflow.ir import Code, Declarative, Node, OperationSpec
from agentflow.operations import ASKING, SLOT_CALL, VECTOR_SEARCHES, is_on_store
from agentflow.placeholders import compile_args
from agentflow.subflows import all_nodes
from agentflow.types import PortType

EMBEDDER = "embedder"
_VECTORS = frozenset({PortType.EMBEDDING, PortType.ARRAY})


def feature_nodes(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Those that need a feature store, in subflows as well."""
    return tuple(node for node in all_nodes(nodes) if (spec := operation_of(node)) and is_on_store(spec.op))


def embedders_of(nodes: Iterable[Node], default: str | None) -> frozenset[str]:
    """The roles that may embed a query of these nodes; `default` serves searches that name none."""
    roles = [
        spec.args.get(EMBEDDER, default)
        for node in all_nodes(nodes)
        if (spec := operation_of(node)) and spec.op in VECTOR_SEARCHES and query_kind(node, spec) != "vector"
    ]
    return frozenset(role for role in roles if isinstance(role, str))


def calls_models(nodes: Collection[Node], embedder: str | None = None) -> bool:
    """Whether a prompt, a slot, an agent or a vector search among these nodes may call a model."""
    asks = any(node.prompt or slot_call(node) or agent_operation(node) for node in all_nodes(nodes))
    return asks or bool(embedders_of(nodes, embedder))


def asks_people(nodes: Iterable[Node]) -> bool:
    """Whether one of these nodes, in subflows as well, waits for a person."""
    return any((spec := operation_of(node)) and spec.op == ASKING for node in all_nodes(nodes))


def code_modules(nodes: Iterable[Node]) -> frozenset[str]:
    """The installed modules whose code these nodes run, in subflows as well."""
    codes = (node.transform for node in all_nodes(nodes) if isinstance(node.transform, Code))
    return frozenset(code.module.partition(":")[0] for code in codes if code.module)


def slot_call(node: Node) -> OperationSpec | None:
    """A node's operation if that is `slot.call`."""
    spec = operation_of(node)
    return spec if spec is not None and spec.op == SLOT_CALL else None


def operation_of(node: Node) -> OperationSpec | None:
    return node.transform.spec if isinstance(node.transform, Declarative) else None


def query_kind(node: Node, spec: OperationSpec) -> str | None:
    """`text` or `vector` where the query of a search can only be that; None where the run will show."""
    query = spec.args.get("query")
    if not isinstance(query, str):
        return "vector"
    names = {*(port.name for port in node.inputs), "context", "prompt_output"}
    try:
        placeholders = compile_args([query], names).placeholders
    except PlaceholderError:
        return None
    if not placeholders or not placeholders[0].whole:
        return "text"
    first, *inside = placeholders[0].path
    if first == "prompt_output":
        return "text"  # no model answers with a vector
    types = {port.name: port.type for port in node.inputs}
    is_element = node.for_each is not None and node.for_each.input == first
    if inside or is_element or first not in types:
        return None
    if types[first] in (PortType.STRING, PortType.DOCUMENT):
        return "text"
    return "vector" if types[first] in _VECTORS else None
