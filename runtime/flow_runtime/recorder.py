"""Who counts model calls for a monitoring system, apart from the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from agent_runtime.errors import BudgetExceededError
    from runtime_core.call_log.records import Attempt, Ending


class CallRecorder(Protocol):
    """Told where every attempt passes. Its methods are quick, wait for nothing and raise nothing."""

    def attempt_ended(self, attempt: Attempt, ending: Ending) -> None:
        """An attempt ended, whether its provider was asked or not."""
        ...

    def refused(self, error: BudgetExceededError, *, scope_id: str) -> None:
        """An attempt was not made, because a budget has no room for it."""
        ...
