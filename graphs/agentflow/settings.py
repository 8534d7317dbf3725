"""A node's run settings with every default filled in: what the node says, else the flow, else the language."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from agentflow.ir import Flow, ModelRef, Node

Number = TypeVar("Number", int, float)

DEFAULT_TIMEOUT_MS = 30_000
DEFAULT_BACKOFF_MS = 1_000
DEFAULT_ATTEMPTS = 1


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """`attempts` counts every attempt (IR.md Q16). `timeout_s` bounds each attempt on its own (Q17).

    `concurrency` is per process, None where the flow leaves it open. `model` is a role name or a model named
    in the flow; None for a node without a prompt. `context_names` are the request fields that the flow knows.
    """

    timeout_s: float
    attempts: int
    backoff_s: float
    concurrency: int | None = None
    model: str | ModelRef | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    context_names: frozenset[str] = frozenset()


def node_settings(flow: Flow, node: Node, *, context_names: frozenset[str]) -> NodeSettings:
    """The settings of one node of a checked flow; `context_names` are its request fields, shared by all nodes."""
    runtime, defaults, prompt = node.runtime, flow.defaults, node.prompt
    ray = flow.deployment.ray
    return NodeSettings(
        timeout_s=_first(runtime.timeout_ms, defaults.timeout_ms, default=DEFAULT_TIMEOUT_MS) / 1000,
        attempts=_first(runtime.retries, defaults.retries, default=DEFAULT_ATTEMPTS),
        backoff_s=_first(runtime.retry_backoff_ms, defaults.retry_backoff_ms, default=DEFAULT_BACKOFF_MS) / 1000,
        concurrency=runtime.concurrency or (ray.concurrency if ray else None),
        model=model_of(flow, node),
        temperature=_optional(prompt.temperature, defaults.temperature) if prompt else None,
        max_tokens=_optional(prompt.max_tokens, defaults.max_tokens) if prompt else None,
        context_names=context_names,
    )


def model_of(flow: Flow, node: Node) -> str | ModelRef | None:
    """The role or model that a node's prompt calls first; None for a node without a prompt."""
    return (node.prompt.role or node.prompt.model or flow.defaults.role) if node.prompt else None


def roles_of(flow: Flow) -> frozenset[str]:
    """Every role that a run of the flow may call."""
    named: set[str | None] = set()
    for node in flow.nodes.values():
        if node.prompt is None:
            continue
        model = model_of(flow, node)
        named.add(model if isinstance(model, str) else None)
        named.add(node.prompt.fallback.role if node.prompt.fallback else None)
    return frozenset(name for name in named if name)


def _first(*values: int | None, default: int) -> int:
    return next((value for value in values if value is not None), default)


def _optional(*values: Number | None) -> Number | None:
    return next((value for value in values if value is not None), None)
