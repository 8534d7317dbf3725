"""The installed tools of a node's agents, under the same policy and timeout as those of its prompt."""

from __future__ import annotations

from collections.abc import Sequence

from agentflow.ir import PromptTool
from agentflow.settings import NodeSettings
from flow_runtime.parts import NodeParts
from flow_runtime.prompt_tools import Policed, counted
from flow_runtime.registered_tools import registered_tool
from llm_client.agent.middleware import Middleware, Timeout
from llm_client.tools import Tool


class AgentTools:
    """What one node may give its agents. Raises CodeRefused or ToolUnknown for a tool that cannot be had here."""

    def __init__(self, node_id: str, names: Sequence[str], settings: NodeSettings, parts: NodeParts) -> None:
        self._node = node_id
        self._settings = settings
        self._parts = parts
        self._tools = {name: registered_tool(PromptTool(name=name), node_id, parts.code) for name in names}

    def all(self) -> dict[str, Tool]:
        """By name."""
        return dict(self._tools)

    def around(self) -> tuple[Middleware, ...]:
        """What stands around every call of one."""
        targets: dict[str, str | None] = dict.fromkeys(self._tools)
        policed = Policed(self._node, targets, self._parts.tool_policy)
        return (policed, *counted(self._parts), Timeout(self._settings.timeout_s, clock=self._parts.clock))
