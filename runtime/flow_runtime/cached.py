"""`runtime.cache`: a node's work, unless the same work was done a moment ago."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from agentflow.context_use import context_fields
from agentflow.errors import PlaceholderFailed
from agentflow.failure import Failure
from agentflow.fingerprint import node_fingerprint
from agentflow.ir import Node
from agentflow.settings import NodeSettings
from agentflow.state_keys import compile_state_key
from agentflow.wiring import BUILT_IN_FIELDS
from flow_runtime.call import NodeCall, Run
from flow_runtime.outcome_cache import CacheKey, json_text
from flow_runtime.parts import NodeParts
from runtime_core.outcome import NodeOutcome


class Cached:
    """Looks an outcome up by scope, node and inputs before it runs `run_one`.

    The inputs stand with the request fields that the node reads; `event_time` and `trace_id` count only in a key
    template. A template replaces them all. Inputs that are not JSON are never looked up.
    """

    def __init__(self, node_id: str, node: Node, settings: NodeSettings, parts: NodeParts, run_one: Run) -> None:
        assert node.runtime.cache is not None
        self._id = node_id
        self._node = node_fingerprint(node_id, node, settings)
        self._ttl_s = node.runtime.cache.ttl_seconds
        self._fields = context_fields(node)
        self._parts = parts
        self._run_one = run_one
        self._template = None
        if (key := node.runtime.cache.key) is not None:
            names = {port.name for port in node.inputs}
            self._template = compile_state_key(key, names, settings.context_names, what="cache key")

    async def run(self, inputs: Mapping[str, Any], call: NodeCall) -> NodeOutcome:
        if call.memory is not None:  # an outcome from the cache has no turns for those who remember them
            return await self._run_one(inputs, call)
        try:
            name = self._name(inputs, call)
        except PlaceholderFailed as exc:
            return NodeOutcome(failure=Failure(reason=str(exc)), attempts=0)
        if name is None:
            return await self._run_one(inputs, call)
        key = CacheKey(call.context.scope_id, self._node, name)
        parts = self._parts
        return await parts.cache.through(key, lambda: self._run_one(inputs, call), ttl_s=self._ttl_s, clock=parts.clock)

    def _name(self, inputs: Mapping[str, Any], call: NodeCall) -> str | None:
        if self._template is not None:
            return f"key {self._template.resolve(inputs, call.fields, self._id)}"
        fields = call.fields.keys() - BUILT_IN_FIELDS if self._fields is None else self._fields
        read = {name: call.fields[name] for name in fields if name in call.fields}
        text = json_text([dict(inputs), read])
        return None if text is None else f"inputs {hashlib.sha256(text.encode()).hexdigest()}"
