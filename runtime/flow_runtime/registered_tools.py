"""Tools that are installed code: functions, or llm_client's Tools, under the entry point group `agentflow.tools`."""

from __future__ import annotations

from agentflow.ir import PromptTool
from flow_runtime.code_mode import CodeMode
from flow_runtime.errors import CodeRefused, ToolUnknown
from flow_runtime.installed import NotInstalled, find, load
from llm_client.errors import ToolError
from llm_client.tools import Tool

ENTRY_POINT_GROUP = "agentflow.tools"


def admit_tool(name: str, node_id: str, mode: CodeMode) -> None:
    """Whether a prompt may call the tool here; nothing is imported. Raises CodeRefused, ToolUnknown."""
    if mode == "off":
        raise CodeRefused(
            f"node '{node_id}' calls the installed tool '{name}', and this server runs no code; "
            "set code: inline or code: modules",
            mode=mode,
        )
    try:
        find(ENTRY_POINT_GROUP, name, what="tool")
    except NotInstalled as exc:
        raise ToolUnknown(f"node '{node_id}': {exc}", tool=name) from exc


def registered_tool(spec: PromptTool, node_id: str, mode: CodeMode) -> Tool:
    """The installed tool that a prompt names, told to models as the flow says. Raises CodeRefused, ToolUnknown."""
    admit_tool(spec.name, node_id, mode)
    try:
        found = load(ENTRY_POINT_GROUP, spec.name, what="tool")
        tool = found if isinstance(found, Tool) else Tool(found, name=spec.name)
        told = tool.told_as(spec.name, description=spec.description, parameters=spec.parameters)
    except (NotInstalled, ToolError) as exc:
        raise ToolUnknown(f"node '{node_id}': {exc}", tool=spec.name) from exc
    if told.needs:
        needed = min(told.needs)
        message = (
            f"node '{node_id}': the tool '{spec.name}' needs the injected value '{needed}', which no flow can give"
        )
        raise ToolUnknown(message, tool=spec.name)
    return told
