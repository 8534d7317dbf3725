"""How many tool calls a run may make: a question for whoever keeps its budget."""

from __future__ import annotations

from typing import Protocol

from llm_client.agent.middleware.chain import Next, ToolInvocation
from llm_client.errors import CallRefused


class ToolBudget(Protocol):
    async def spend(self, call: ToolInvocation) -> None:
        """Called once before a call, however often it is then tried. Raises CallRefused, or one of its kinds."""
        ...


class MaxToolCalls:
    """At most `limit` calls in one run."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    async def spend(self, call: ToolInvocation) -> None:
        if call.number > self._limit:
            raise CallRefused(
                f"This run may make {self._limit} tool calls, and it has made them; answer with what is known.",
                scope_id=call.context.tenant_id,
                reason="max_tool_calls",
            )


class Budget:
    def __init__(self, budget: ToolBudget) -> None:
        self._budget = budget

    async def __call__(self, call: ToolInvocation, next: Next) -> str:
        await self._budget.spend(call)
        return await next(call)
