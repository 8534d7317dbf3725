"""Who may say no to a tool call that a model asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from flow_runtime.call import NodeCall


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
