"""Caches: keys that can be filled, and no cache in front of what a run is meant to do."""

from __future__ import annotations

from agentflow.checks.scope import Findings, Scope, at_node
from agentflow.errors import PlaceholderError
from agentflow.memory import remembers
from agentflow.placeholders import compile_state_key
from agentflow.planning import acts


def check_caches(scope: Scope) -> Findings:
    """Findings about `runtime.cache` of all nodes."""
    for name, node in scope.flow.nodes.items():
        cache = node.runtime.cache
        if cache is None:
            continue
        if node.prompt is not None and node.prompt.tools:
            message = f"the prompt of '{name}' has tools, and an answer from a cache would leave their calls out"
            hint = "remove the cache; the nodes that run as tools may have one"
            yield at_node("cached-action", message, hint, node=name, at=("runtime", "cache"))
        elif remembers(node) != "none":
            message = f"node '{name}' answers from what it remembers, and a cache knows only its inputs"
            yield at_node("cached-action", message, "remove the cache", node=name, at=("runtime", "cache"))
        elif acts(node):
            message = f"node '{name}' acts, and an answer from a cache would leave that out"
            hint = "remove the cache; only prompts and operations that read may have one"
            yield at_node("cached-action", message, hint, node=name, at=("runtime", "cache"))
        if cache.key is not None:
            try:
                compile_state_key(cache.key, {port.name for port in node.inputs}, scope.fields, what="cache key")
            except PlaceholderError as exc:
                hint = "a key may hold {port}, {field}, {context.field} and {node.id}"
                yield at_node("bad-cache-key", str(exc), hint, node=name, at=("runtime", "cache", "key"))
