"""The flow language: load a flow file, look at its findings, plan it.

`agentflow.load(path)` gives a checked flow or raises FlowInvalid with everything that is wrong with it. Importing this
package imports none of its modules; a name loads the one that it comes from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentflow.lazy import lazy_exports

if TYPE_CHECKING:
    from agentflow.errors import FlowError, FlowInvalid
    from agentflow.findings import Finding
    from agentflow.ir import Flow
    from agentflow.loading import LoadedFlow, from_mapping, inspect_flow, load, loads
    from agentflow.planning import Plan, plan

__all__ = [
    "Finding",
    "Flow",
    "FlowError",
    "FlowInvalid",
    "LoadedFlow",
    "Plan",
    "from_mapping",
    "inspect_flow",
    "load",
    "loads",
    "plan",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "errors": ("FlowError", "FlowInvalid"),
        "findings": ("Finding",),
        "ir": ("Flow",),
        "loading": ("LoadedFlow", "from_mapping", "inspect_flow", "load", "loads"),
        "planning": ("Plan", "plan"),
    },
)
