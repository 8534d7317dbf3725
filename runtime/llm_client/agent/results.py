"""What an agent's run gives back."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

from llm_client.errors import CallRefused, LLMClientError, ToolArgumentsInvalid, UnknownTool
from runtime_core.call_log.records import Usage


class ToolOutcome(StrEnum):
    """How a tool call ended. Only `done` and `failed` ones reached the function, and `failed` not always."""

    DONE = "done"
    FAILED = "failed"
    INVALID = "invalid"
    UNKNOWN = "unknown"
    REFUSED = "refused"

    @classmethod
    def of(cls, error: LLMClientError) -> ToolOutcome:
        match error:
            case UnknownTool():
                return cls.UNKNOWN
            case ToolArgumentsInvalid():
                return cls.INVALID
            case CallRefused():
                return cls.REFUSED
            case _:
                return cls.FAILED


class ToolCallRecord(BaseModel):
    """A tool call as the model asked for it. `error` is a short code, None for a call that was done."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    name: str
    arguments: str
    turn: int
    outcome: ToolOutcome
    error: str | None = None
    duration_s: float = 0.0


class AgentResult(BaseModel):
    """`messages` is the whole conversation, ready to be continued. `turns` counts model calls.

    `usage` and `cost_micro` (millionths of a dollar) are totals; the cost is None if that of any call is unknown.
    `output` is the checked value where an output schema was given: JSON, or an instance of the given class.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    content: str
    messages: tuple[dict[str, JsonValue], ...]
    turns: int
    tool_calls: tuple[ToolCallRecord, ...] = ()
    usage: Usage = Usage()
    cost_micro: int | None = None
    finish_reason: str = "stop"
    output: Any = None
