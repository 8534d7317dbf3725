"""The chain that `Agent(use_middleware=True)` uses."""

from __future__ import annotations

from llm_client.agent.middleware.budget import Budget, MaxToolCalls, ToolBudget
from llm_client.agent.middleware.chain import Middleware
from llm_client.agent.middleware.log import Logging
from llm_client.agent.middleware.retry import TOOL_RETRIES, Retry
from llm_client.agent.middleware.telemetry import Telemetry, ToolEventSink
from llm_client.agent.middleware.timeout import Timeout
from llm_client.retry import RetryPolicy
from runtime_core.clock import Clock, SystemClock

MOST_TOOL_CALLS = 64
"""Of one run, where no budget is given."""


def default_middleware(
    *,
    sink: ToolEventSink | None = None,
    budget: ToolBudget | None = None,
    retry: RetryPolicy = TOOL_RETRIES,
    timeout_s: float = 30.0,
    clock: Clock | None = None,
) -> tuple[Middleware, ...]:
    """Telemetry, logging, budget, retry, timeout: a tuple to change, to add to, and to give to an Agent."""
    clock = clock or SystemClock()
    return (
        Telemetry(sink, clock=clock),
        Logging(clock=clock),
        Budget(budget or MaxToolCalls(MOST_TOOL_CALLS)),
        Retry(retry, clock=clock),
        Timeout(timeout_s, clock=clock),
    )
