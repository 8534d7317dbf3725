"""What keeps a good flow from being compiled."""

from __future__ import annotations

from collections.abc import Iterator

from agentflow.findings import Finding, PathStep
from agentflow.ir import Code, Flow


def forbidden_code(flow: Flow, path: tuple[PathStep, ...] = ()) -> Iterator[Finding]:
    """A finding for every node, those of subflows too, whose work is code that the flow carries or names."""
    for name, node in flow.nodes.items():
        at = (*path, "nodes", name)
        if isinstance(node.transform, Code):
            message = f"node '{name}' runs code, and this compilation forbids it"
            yield Finding(
                "code-forbidden", message, "use operations, or compile without --forbid-code", (*at, "transform")
            )
        if isinstance(node.flow, Flow):
            yield from forbidden_code(node.flow, (*at, "flow"))
