"""What stands around every tool call of a flow, whether a prompt or an agent has the tool: the one road to tools.

Outermost first: the policy, the ledger, the time that the call may take.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentflow.settings import NodeSettings
from flow_runtime.asking import current
from flow_runtime.models import CountsTools
from flow_runtime.parts import NodeParts
from flow_runtime.tool_policy import ToolPolicy, ToolRequest
from llm_client.agent.middleware import Middleware, Next, Timeout, ToolInvocation
from runtime_core.context import ExecutionContext


def around_tools(
    node_id: str, targets: Mapping[str, str | None], settings: NodeSettings, parts: NodeParts
) -> tuple[Middleware, ...]:
    """For the tools of one node; `targets` are the nodes that run as tools, by the tool's name."""
    timeout = Timeout(settings.timeout_s, clock=parts.clock)
    policed = Policed(node_id, targets, parts.tool_policy)
    if not isinstance(parts.models, CountsTools):
        return (policed, timeout)
    from agent_runtime.ledger.tool_calls import LedgerMiddleware

    counted = LedgerMiddleware(parts.models.tool_ledger, allowed_s=timeout.allowed_s, who=_run)
    return (policed, counted, timeout)


class Policed:
    """Asks the policy about every call."""

    def __init__(self, node_id: str, targets: Mapping[str, str | None], policy: ToolPolicy) -> None:
        self._node = node_id
        self._targets = targets
        self._policy = policy

    async def __call__(self, call: ToolInvocation, next: Next) -> str:
        asking = current.get()
        assert asking is not None
        name = call.tool.name
        request = ToolRequest(self._node, name, self._targets[name], call.arguments, asking.call)
        await self._policy.admit(request)
        return await next(call)


def _run(call: ToolInvocation) -> ExecutionContext:
    """The flow's own run: an operator in it has another one, of which no budget knows."""
    asking = current.get()
    assert asking is not None
    return asking.call.context
