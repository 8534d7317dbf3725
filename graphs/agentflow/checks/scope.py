"""What the checks look at: a flow of good shape, and what is known about the place where it will run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TypedDict

from agentflow.findings import Finding, PathStep, Severity
from agentflow.ir import Flow
from agentflow.operations import OperationSpecification
from agentflow.wiring import Wire

Findings = Iterator[Finding]

CONTEXT = "context"
PROMPT_OUTPUT = "prompt_output"
"""The names beside a node's input ports: the request's fields, and the answer to its prompt."""


class Surroundings(TypedDict, total=False):
    """What a check may know beyond the flow; everything is optional.

    `roles` and `providers` are those of llmhub: when given, the flow may name no others. `unpriced` are the roles
    without a price there.
    `has_default_role`: prompts without a role or model get one. `has_embedder`: whether text queries get one where
    the operation names none; None where that is not known. `operations` are those installed beside the catalogue.
    """

    roles: Collection[str] | None
    providers: Collection[str] | None
    unpriced: Collection[str] | None
    has_default_role: bool
    has_embedder: bool | None
    operations: Collection[OperationSpecification]


@dataclass(frozen=True, slots=True)
class Scope:
    """One flow under check. `fields` are the request fields it has; `operations` is the whole catalogue."""

    flow: Flow
    wires: tuple[Wire, ...]
    fields: frozenset[str]
    operations: Mapping[str, OperationSpecification]
    roles: Collection[str] | None = None
    providers: Collection[str] | None = None
    unpriced: Collection[str] | None = None
    has_default_role: bool = False
    has_embedder: bool | None = None
    is_subflow: bool = False


def at_node(
    code: str,
    message: str,
    hint: str = "",
    *,
    node: str,
    at: tuple[PathStep, ...] = (),
    severity: Severity = "error",
) -> Finding:
    """A finding about a node; `at` leads on from the node."""
    return Finding(code=code, message=message, hint=hint, path=("nodes", node, *at), severity=severity)


def unknown_field(scope: Scope, field: str, path: tuple[PathStep, ...]) -> Finding:
    """The finding about a request field that the flow does not have."""
    hint = f"list it under context.requires or context.optional; the flow has: {listed(sorted(scope.fields))}"
    return Finding("unknown-context-field", f"the request has no field '{field}'", hint, path)


def listed(names: Collection[str], limit: int = 12) -> str:
    """Names for a sentence, the first few of many."""
    shown = ", ".join(f"'{name}'" for name in list(names)[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown
