"""Operations on a feature store: one source, a key with a column, an embedder for text, handles that stay at home."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from agentflow.checks.scope import Findings, Scope, at_node
from agentflow.errors import PlaceholderError
from agentflow.feature_use import EMBEDDER, operation_of, query_kind
from agentflow.findings import Finding, PathStep
from agentflow.ir import Node, OperationSpec
from agentflow.operations import HANDLE_OPERATIONS, VECTOR_SEARCHES
from agentflow.placeholders import compile_args

_ARGS = ("transform", "spec", "args")
_READS = frozenset({"features.read", "hopsworks.read_features"})
_WRITES = frozenset({"features.write", "hopsworks.write_features"})
_NAMED = ("feature_group", "feature_view", "index")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}(_v[0-9]{1,6})?", re.ASCII)
MOST_HITS = 1000


def check_features(scope: Scope) -> Findings:
    """Findings about the operations on a feature store of all nodes."""
    for name, node in scope.flow.nodes.items():
        spec = operation_of(node)
        if spec is None:
            continue
        if spec.op in _READS | _WRITES | VECTOR_SEARCHES:
            yield from _bad_values(name, spec)
        if spec.op in _READS:
            yield from _source(name, spec)
            yield from _key(name, node, spec)
        if spec.op in VECTOR_SEARCHES:
            yield from _embedder(scope, name, node, spec)
        if spec.op in HANDLE_OPERATIONS:
            yield from _handle(scope, name)


def _bad_values(name: str, spec: OperationSpec) -> Findings:
    for argument, value in spec.args.items():
        if (problem := _problem(argument, value)) is not None:
            message = f"the argument '{argument}' of '{spec.op}' must be {problem}"
            yield at_node("bad-argument", message, node=name, at=(*_ARGS, argument))


def _problem(argument: str, value: Any) -> str | None:
    """What a written-out value should be instead; placeholders are known only at run time."""
    if isinstance(value, str) and "${" in value:
        return None
    if argument in _NAMED and not (isinstance(value, str) and _NAME.fullmatch(value)):
        return "a name of lower-case letters, digits and _, such as shoppers_v2"
    if argument == "version" and not _is_count(value):
        return "a whole number from 1 on"
    if argument == "limit" and not _is_count(value, most=MOST_HITS):
        return f"a whole number from 1 to {MOST_HITS}"
    if argument == "features" and not (isinstance(value, list) and value):
        return "a list of column names"
    if argument == "filters" and not isinstance(value, dict):
        return "a mapping of columns to values"
    return None


def _is_count(value: Any, *, most: int = 999_999) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= most


def _source(name: str, spec: OperationSpec) -> Findings:
    given = [argument for argument in ("feature_group", "feature_view") if argument in spec.args]
    if len(given) != 1:
        which = "both feature_group and feature_view" if given else "neither feature_group nor feature_view"
        hint = "a view already says which group it reads; name one of the two"
        yield at_node("feature-source", f"'{spec.op}' of '{name}' has {which}", hint, node=name, at=_ARGS)


def _key(name: str, node: Node, spec: OperationSpec) -> Findings:
    key = spec.args.get("key")
    if key is None or isinstance(key, dict) or "key_column" in spec.args:
        return
    names = {*(port.name for port in node.inputs), "context", "prompt_output"}
    try:
        column = compile_args({"key": key}, names).last_name("key")
    except PlaceholderError:
        return
    if column is None:
        message = f"the key of '{name}' does not say which column it is"
        hint = "give it a key_column, write it as one placeholder such as ${user_id}, or as {column: value}"
        yield at_node("no-key-column", message, hint, node=name, at=(*_ARGS, "key"))


def _embedder(scope: Scope, name: str, node: Node, spec: OperationSpec) -> Findings:
    role = spec.args.get(EMBEDDER)
    at: tuple[PathStep, ...] = (*_ARGS, EMBEDDER)
    if EMBEDDER in spec.args and not (isinstance(role, str) and role and "${" not in role):
        message = f"the argument 'embedder' of '{spec.op}' must be the name of a role"
        yield at_node("bad-argument", message, node=name, at=at)
    elif isinstance(role, str) and scope.roles is not None and role not in scope.roles:
        yield at_node("unknown-role", f"llmhub has no role '{role}'", node=name, at=at)
    elif role is None and scope.has_embedder is False and query_kind(node, spec) == "text":
        message = f"the query of '{name}' is text, and nobody says which model embeds it"
        hint = "give the operation an embedder, a role of llmhub.yaml, or name one in the serve config"
        yield at_node("no-embedder", message, hint, node=name, at=(*_ARGS, "query"))


def _handle(scope: Scope, name: str) -> Findings:
    for index, target in _wired_on(scope, name):
        path = ("edges", index, "from")
        if target is None:
            message = f"the model that '{name}' gets is a handle and cannot be an answer"
            yield Finding("handle-leaves", message, "let a code node answer with what the model says", path)
        elif not (_is_inline(scope, name) and _is_inline(scope, target)):
            message = f"the model that '{name}' gets is a handle and cannot go to '{target}' in another process"
            hint = f"set runtime.placement of '{name}' and '{target}' to inline"
            yield Finding("handle-leaves", message, hint, path)


def _wired_on(scope: Scope, name: str) -> Iterator[tuple[int, str | None]]:
    for wire in scope.wires:
        if wire.source == name and not wire.from_error:
            yield wire.index, wire.target


def _is_inline(scope: Scope, name: str) -> bool:
    ray = scope.flow.deployment.ray
    return (scope.flow.nodes[name].runtime.placement or (ray.placement if ray else None)) == "inline"
