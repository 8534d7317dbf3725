"""What `agentflow compile` writes its Python in: declarations of nodes and edges, and the agent that runs them.

A compiled flow is a class. Each node is a method under `@node(...)`, which says what feeds it; the class is run by the
one scheduler and the one loop, as the flow file is, so both give the same answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentflow.lazy import lazy_exports
from flow_runtime.errors import NodeFailure

if TYPE_CHECKING:
    from flow_runtime.compiled.agent import LocalAgent, run_agent
    from flow_runtime.compiled.context import Context, Inputs, Outputs
    from flow_runtime.compiled.declare import code, edge, flow_facts, installed, node, operation, port

__all__ = [
    "Context",
    "Inputs",
    "LocalAgent",
    "NodeFailure",
    "Outputs",
    "code",
    "edge",
    "flow_facts",
    "installed",
    "node",
    "operation",
    "port",
    "run_agent",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "agent": ("LocalAgent", "run_agent"),
        "context": ("Context", "Inputs", "Outputs"),
        "declare": ("code", "edge", "flow_facts", "installed", "node", "operation", "port"),
    },
)
