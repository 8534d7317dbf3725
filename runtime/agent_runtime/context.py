"""The context of a run, as the specification names it; runtime_core holds it, because every layer reads it."""

from __future__ import annotations

from runtime_core.context import BudgetSpec, ExecutionContext, PolicyRef, RunVersions

__all__ = ["BudgetSpec", "ExecutionContext", "PolicyRef", "RunVersions"]
