"""A planned flow as the Python of an agent, for three targets. Text in, text out: nothing is run, read or written.

The class has a method for each node, under a declaration of what feeds the node. When a node starts, is skipped or
ends a run is decided by the one scheduler (`agentflow.schedule`), so that a compiled flow cannot read the language in
a way of its own.
"""

from __future__ import annotations

from agentflow.compile.module import MARK, TARGETS, Places, Target, module
from agentflow.planning import Plan

__all__ = ["MARK", "MODULE", "TARGETS", "Places", "Target", "compile_plan"]

MODULE = "agent.py"


def compile_plan(plan: Plan, *, target: Target = "kserve", places: Places = lambda _: None) -> dict[str, str]:
    """The files of the agent, by name. The same plan, target and places give the same bytes."""
    return {MODULE: module(plan, target=target, places=places)}
