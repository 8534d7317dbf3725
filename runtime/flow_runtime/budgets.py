"""What a flow says of its budget, as one of its runs needs it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from agentflow.ir import Flow
from agentflow.subflows import all_flows
from flow_runtime.call import OnExceed
from runtime_core.context import BudgetSpec, ExecutionContext


class RunAccounts(Protocol):
    """Where runs have their budgets: agent_runtime's RunLedger."""

    def budgeted(
        self, run: ExecutionContext, limits: BudgetSpec, *, within: str | None = None, holds: bool = False
    ) -> AbstractAsyncContextManager[None]:
        """Raises BudgetExceededError where `holds` does not fit, and errors of the StoreError tree."""
        ...

    async def raise_limits(self, scope_id: str, run_id: str, limits: Mapping[str, object]) -> bool: ...

    async def count_tool_call(self, run: ExecutionContext, tool: str, *, budgeted: bool) -> None:
        """Raises BudgetExceededError, and errors of the StoreError tree."""
        ...


@dataclass(frozen=True, slots=True)
class FlowBudget:
    """The limits of each run, whether they are held from its start, and what happens when one is reached."""

    limits: BudgetSpec
    holds: bool
    on_exceed: OnExceed


def budget_of(flow: Flow) -> FlowBudget | None:
    """None for a flow whose runs may use anything."""
    given = flow.budgets
    if given is None:
        return None
    limits = BudgetSpec(
        max_tokens=given.max_tokens,
        max_cost=None if given.max_cost is None else Decimal(str(given.max_cost)),
        max_tool_calls=given.max_tool_calls,
        max_turns=given.max_turns,
        max_runtime_seconds=given.max_runtime_seconds,
    )
    return FlowBudget(limits, given.reserve == "run", OnExceed(flow.on_exceed or "stop", given.degrade_role))


def asks_for_more(flow: Flow) -> bool:
    """Whether a person may be asked to raise the budget of its runs, or of those of a subflow."""
    return any(each.budgets is not None and each.on_exceed == "ask" for each in all_flows(flow))
