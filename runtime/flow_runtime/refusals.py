"""A ledger's or a policy's no, as what a node fails with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentflow.failure import Refused
from flow_runtime.errors import CallNotAllowed

if TYPE_CHECKING:
    from agent_runtime.errors import BudgetExceededError, PolicyDenied

BUDGET_REASONS = frozenset({"budget_exceeded", "too_large", "no_price", "run_over"})


def not_allowed(error: BudgetExceededError | PolicyDenied) -> CallNotAllowed:
    """The same for flows: `node failed`, with what programs want to know of it."""
    from agent_runtime.errors import BudgetExceededError

    if isinstance(error, BudgetExceededError):
        reason = error.reason if error.reason in BUDGET_REASONS else "budget_exceeded"
        refused = Refused(reason, error.limit, error.window)
        return CallNotAllowed(str(error), kind="budget_exceeded", refused=refused, retry_after=error.retry_after)
    refused = Refused(error.reason or "deny")
    return CallNotAllowed(str(error), kind="policy_denied", refused=refused, retry_after=error.retry_after)
