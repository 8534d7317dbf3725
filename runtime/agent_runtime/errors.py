"""What can go wrong in agent_runtime.

    AgentRuntimeError (an AgentflowError)         `code` is stable and machine-readable
    `- OrchestrationError
       |- GraphInvalid                            an ExecutionGraph cannot run: `problems` has a sentence for each reason
       `- LimitReached                            an OrchestrationConfig does not allow that many children or levels

    CallRefused (llm_client)
    `- BudgetExceededError                        a BudgetSpec has no room for what is wanted

Every class takes its message first and its facts as optional keywords, and survives pickling with them.
"""

from __future__ import annotations

from typing import ClassVar

from llm_client.errors import CallRefused
from runtime_core.errors import AgentflowError


class AgentRuntimeError(AgentflowError):
    code: ClassVar[str] = "agent_runtime"


class OrchestrationError(AgentRuntimeError):
    code: ClassVar[str] = "orchestration"


class GraphInvalid(OrchestrationError):
    code: ClassVar[str] = "graph_invalid"

    def __init__(self, message: str, *, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class LimitReached(OrchestrationError):
    """`limit` is the field of OrchestrationConfig, `allowed` its value."""

    code: ClassVar[str] = "limit_reached"

    def __init__(self, message: str, *, limit: str | None = None, allowed: int | None = None) -> None:
        super().__init__(message)
        self.limit = limit
        self.allowed = allowed


class BudgetExceededError(CallRefused):
    """`reason` is the field of the budget that is spent."""

    code: ClassVar[str] = "budget_exceeded"
