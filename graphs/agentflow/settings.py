"""A node's run settings with every default filled in: what the node says, else the flow, else the language."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar, get_args

from agentflow.agent_use import agent_roles
from agentflow.feature_use import operation_of, slot_call
from agentflow.ir import Backoff, FailureKind, Flow, ModelRef, Node, Port
from agentflow.operations import ASKING
from agentflow.subflows import all_flows
from agentflow.tools import called_tools

Number = TypeVar("Number", int, float)

DEFAULT_TIMEOUT_MS = 30_000
ASKING_TIMEOUT_MS = 24 * 3_600_000
"""Of a node that waits for a person and does not say for how long."""
ASKING_GRACE_MS = 5_000
"""Such a node's own limit comes after the person's, which says more clearly what happened."""
DEFAULT_BACKOFF_MS = 1_000
DEFAULT_MAX_BACKOFF_MS = 60_000
"""The longest pause of an exponential backoff that names no limit."""
DEFAULT_ATTEMPTS = 1
ALL_FAILURES: frozenset[FailureKind] = frozenset(get_args(FailureKind))


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """`attempts` counts every attempt (IR.md Q16). `timeout_s` bounds each attempt on its own (Q17).

    `concurrency` is per process, None where the flow leaves it open. `model` is a role name or a model named
    in the flow; None for a node that calls none. `context_names` are the request fields that the flow knows.
    A failure whose kind is not in `retry_on` ends the attempts. `max_backoff_s` bounds every pause, None not at all;
    with `jitter` a pause takes anything between nothing and its full length. `tools` are the input ports of the nodes
    that its prompt calls as tools.
    """

    timeout_s: float
    attempts: int
    backoff_s: float
    concurrency: int | None = None
    model: str | ModelRef | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    context_names: frozenset[str] = frozenset()
    retry_on: frozenset[FailureKind] = ALL_FAILURES
    backoff: Backoff = "constant"
    max_backoff_s: float | None = None
    jitter: bool = False
    tools: Mapping[str, tuple[Port, ...]] = field(default_factory=dict[str, tuple[Port, ...]])


def node_settings(flow: Flow, node: Node, *, context_names: frozenset[str]) -> NodeSettings:
    """The settings of one node of a checked flow; `context_names` are its request fields, shared by all nodes."""
    runtime, defaults, prompt = node.runtime, flow.defaults, node.prompt
    ray = flow.deployment.ray
    backoff = runtime.backoff or "constant"
    limit_ms = runtime.max_backoff_ms
    if limit_ms is None and backoff == "exponential":
        limit_ms = DEFAULT_MAX_BACKOFF_MS
    return NodeSettings(
        timeout_s=_first(runtime.timeout_ms, _patience_ms(node), defaults.timeout_ms, default=DEFAULT_TIMEOUT_MS)
        / 1000,
        attempts=_first(runtime.retries, defaults.retries, default=DEFAULT_ATTEMPTS),
        backoff_s=_first(runtime.retry_backoff_ms, defaults.retry_backoff_ms, default=DEFAULT_BACKOFF_MS) / 1000,
        concurrency=runtime.concurrency or (ray.concurrency if ray else None),
        model=model_of(flow, node),
        temperature=_optional(prompt.temperature, defaults.temperature) if prompt else None,
        max_tokens=_optional(prompt.max_tokens, defaults.max_tokens) if prompt else None,
        context_names=context_names,
        retry_on=ALL_FAILURES if runtime.retry_on is None else frozenset(runtime.retry_on),
        backoff=backoff,
        max_backoff_s=None if limit_ms is None else limit_ms / 1000,
        jitter=bool(runtime.jitter),
        tools={tool: flow.nodes[tool].inputs for tool in called_tools(node)},
    )


def _patience_ms(node: Node) -> int | None:
    """How long a node that waits for a person waits by itself: as long as the person has, and a moment."""
    spec = operation_of(node)
    if spec is None or spec.op != ASKING:
        return None
    given = spec.args.get("timeout_seconds")
    return ASKING_TIMEOUT_MS if not isinstance(given, int | float) else int(given * 1000) + ASKING_GRACE_MS


def model_of(flow: Flow, node: Node) -> str | ModelRef | None:
    """The role or model that a node's prompt or slot calls first; None for a node that calls none."""
    if node.prompt is not None:
        return node.prompt.role or node.prompt.model or flow.defaults.role
    slot = slot_call(node)
    return None if slot is None else slot.args.get("role") or flow.defaults.role


def needs_judge(flow: Flow) -> bool:
    """Whether a model judges the answers of some prompt."""
    return any(
        requirement.check is None
        for owner in all_flows(flow)
        for node in owner.nodes.values()
        if node.prompt is not None
        for requirement in node.prompt.requirements
    )


def roles_of(flow: Flow) -> frozenset[str]:
    """Every role that a run of the flow may call."""
    named: set[str | None] = set()
    for owner in all_flows(flow):
        named.add(owner.budgets.degrade_role if owner.budgets else None)
        for node in owner.nodes.values():
            named |= agent_roles(node)
            model = model_of(owner, node)
            named.add(model if isinstance(model, str) else None)
            named.add(node.prompt.fallback.role if node.prompt and node.prompt.fallback else None)
            named.add(slot.args.get("role") if (slot := slot_call(node)) else None)
    return frozenset(name for name in named if name)


def models_of(flow: Flow) -> Iterator[ModelRef]:
    """Every model that a prompt or a fallback names instead of a role."""
    for owner in all_flows(flow):
        for node in owner.nodes.values():
            if node.prompt is not None:
                fallback = node.prompt.fallback
                named = (model_of(owner, node), fallback.model if fallback else None)
                yield from (model for model in named if isinstance(model, ModelRef))


def _first(*values: int | None, default: int) -> int:
    return next((value for value in values if value is not None), default)


def _optional(*values: Number | None) -> Number | None:
    return next((value for value in values if value is not None), None)
