"""Who may say no to a tool call that a model asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from flow_runtime.call import NodeCall

if TYPE_CHECKING:
    from agent_runtime.policy.engine import PolicyEngine


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """A call that is about to be made: the prompt of `node` has the tool, and the arguments fit its schema.

    `target` is the node that would run, None for an installed tool. Identity and session stand in `call`.
    """

    node: str
    tool: str
    target: str | None
    arguments: Mapping[str, Any]
    call: NodeCall


class ToolPolicy(Protocol):
    """Asked before every tool call, after the model."""

    async def admit(self, request: ToolRequest) -> None:
        """Raises llm_client's CallRefused, or a subclass, to refuse; the model is told its sentence."""
        ...


class AdmitAllTools:
    """The default policy."""

    async def admit(self, request: ToolRequest) -> None:
        return None


class AdmitByPolicy:
    """The rules of a PolicyEngine, which may ask a person first."""

    def __init__(self, engine: PolicyEngine) -> None:
        self._engine = engine

    async def admit(self, request: ToolRequest) -> None:
        """Raises PolicyDenied."""
        from agent_runtime.policy.guard import demand

        run = request.call.context
        result = await self._engine.check_tool(request.tool, run, arguments=request.arguments)
        demand(result, run, f"The tool {request.tool}")
