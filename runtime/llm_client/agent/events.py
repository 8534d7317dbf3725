"""What an agent's stream is made of. The last event is AgentEnded or StreamFailed, and there is exactly one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from llm_client.agent.results import AgentResult, ToolOutcome
from llm_client.events import ReasoningDelta, StreamFailed, TextDelta, ToolCallDelta


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ToolStarted(_Frozen):
    """`name` is the model's own text: it may name no tool at all."""

    kind: Literal["tool_started"] = "tool_started"
    call_id: str
    name: str
    turn: int


class ToolFinished(_Frozen):
    """`error` is a short code, None for a call that was done."""

    kind: Literal["tool_finished"] = "tool_finished"
    call_id: str
    name: str
    turn: int
    outcome: ToolOutcome
    error: str | None = None
    duration_s: float = 0.0


class AgentEnded(_Frozen):
    kind: Literal["agent_ended"] = "agent_ended"
    result: AgentResult


AgentEvent = Annotated[
    TextDelta | ReasoningDelta | ToolCallDelta | ToolStarted | ToolFinished | AgentEnded | StreamFailed,
    Field(discriminator="kind"),
]
