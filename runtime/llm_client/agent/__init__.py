"""A model with tools, asked again until it answers."""

from .core import Agent
from .events import AgentEnded, AgentEvent, ToolFinished, ToolStarted
from .loop import ModelEngine
from .results import AgentResult, ToolCallRecord, ToolOutcome

__all__ = [
    "Agent",
    "AgentEnded",
    "AgentEvent",
    "AgentResult",
    "ModelEngine",
    "ToolCallRecord",
    "ToolFinished",
    "ToolOutcome",
    "ToolStarted",
]
