"""What a run is pinned to: the SHA-256 of a flow's canonical form."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from agentflow.ir import Flow, Node
from agentflow.settings import NodeSettings

_NOT_MEANT = {"nodes": {"__all__": {"id": True, "position": True, "flow": True}}, "tests": True}
"""A node's id only repeats its key, its position only matters to an editor, and tests change no run."""


def canonical(flow: Flow) -> bytes:
    """The flow as JSON in UTF-8: keys sorted, no spaces, nothing that only repeats a default.

    The same for the YAML and the JSON form of a flow and for every order of its keys. The order of edges is
    part of it (IR.md Q12).
    """
    return _text(_meant(flow))


def fingerprint(flow: Flow) -> str:
    """The SHA-256 of the canonical form, in hexadecimal."""
    return hashlib.sha256(canonical(flow)).hexdigest()


def _meant(flow: Flow) -> dict[str, Any]:
    data: dict[str, Any] = flow.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=_NOT_MEANT)
    for name, node in flow.nodes.items():
        if node.flow is not None:
            data["nodes"][name]["flow"] = node.flow if isinstance(node.flow, str) else _meant(node.flow)
    return data


def node_fingerprint(name: str, node: Node, settings: NodeSettings) -> str:
    """The SHA-256 of all that decides what a node makes of its inputs: itself, and what the flow adds to its prompt."""
    data = node.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"id", "position", "runtime"})
    model = settings.model if settings.model is None or isinstance(settings.model, str) else settings.model.model_dump()
    return hashlib.sha256(_text([name, data, model, settings.temperature, settings.max_tokens])).hexdigest()


def _text(data: Any) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
