"""What stands around every tool call of a flow, whether a prompt or an agent has the tool: the one road to tools.

Outermost first: the policy, the ledger, the time that the call may take. What refuses a call is told to the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack

from agentflow.settings import NodeSettings
from flow_runtime.asking import current
from flow_runtime.errors import LedgerUnavailable
from flow_runtime.models import KeepsAccounts
from flow_runtime.parts import NodeParts
from flow_runtime.tool_policy import ToolPolicy, ToolRequest
from llm_client.agent.middleware import Middleware, Next, Timeout, ToolInvocation
from runtime_core.errors import StoreError


def around_tools(
    node_id: str, targets: Mapping[str, str | None], settings: NodeSettings, parts: NodeParts
) -> tuple[Middleware, ...]:
    """For the tools of one node; `targets` are the nodes that run as tools, by the tool's name."""
    timeout = Timeout(settings.timeout_s, clock=parts.clock)
    policed = Policed(node_id, targets, parts.tool_policy)
    if not isinstance(parts.models, KeepsAccounts):
        return (policed, timeout)
    return (policed, Counted(parts.models, timeout), timeout)


class Policed:
    """Asks the policy about every call."""

    def __init__(self, node_id: str, targets: Mapping[str, str | None], policy: ToolPolicy) -> None:
        self._node = node_id
        self._targets = targets
        self._policy = policy

    async def __call__(self, call: ToolInvocation, next: Next) -> str:
        """Raises what the policy does, and LedgerUnavailable where nobody can tell: its store is gone."""
        asking = current.get()
        assert asking is not None
        name = call.tool.name
        request = ToolRequest(self._node, name, self._targets[name], call.arguments, asking.call)
        try:
            await self._policy.admit(request)
        except StoreError as exc:
            raise LedgerUnavailable(str(exc)) from exc
        return await next(call)


class Counted:
    """Reserves every call in the ledger, for the flow's own run: an operator in it has a run of which no budget knows.

    A call that does not fit a budget is told to the model, unless somebody raises the limit.
    """

    def __init__(self, models: KeepsAccounts, timeout: Timeout) -> None:
        self._models = models
        self._timeout = timeout

    async def __call__(self, call: ToolInvocation, next: Next) -> str:
        """Raises BudgetExceededError, and LedgerUnavailable where nobody can tell whether the call fits."""
        from flow_runtime.exceeding import within_budget
        from llm_client.errors import CallStoreError

        asking = current.get()
        assert asking is not None
        run, name = asking.call.context, call.tool.name
        async with AsyncExitStack() as stack:

            async def reserve(_: str) -> None:
                most_s, budgeted = self._timeout.allowed_s(call), run.budgets is not None
                reserved = self._models.tool_ledger.call(run, name, most_s=most_s, budgeted=budgeted)
                await stack.enter_async_context(reserved)

            try:
                await within_budget(name, reserve, self._models.runs, may_degrade=False)
            except (CallStoreError, StoreError) as exc:
                raise LedgerUnavailable(str(exc)) from exc
            return await next(call)
