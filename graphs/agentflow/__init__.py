"""The flow language: load a flow file, look at its findings, plan it.

`agentflow.load(path)` gives a checked flow or raises FlowInvalid with everything that is wrong with it.
"""

from __future__ import annotations

from agentflow.errors import FlowError, FlowInvalid
from agentflow.findings import Finding
from agentflow.ir import Flow
from agentflow.load import LoadedFlow, from_mapping, inspect_flow, load, loads
from agentflow.plan import Plan, plan

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
