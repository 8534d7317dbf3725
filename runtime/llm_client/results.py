"""What a model call gives back."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue

from runtime_core.call_log.records import Usage


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ToolCall(_Frozen):
    """A tool that the model wants called. `arguments` is the model's own text: data, not yet checked."""

    id: str
    name: str
    arguments: str


class CompletionResult(_Frozen):
    """An answer. `content` is its text, empty where there are only tool calls.

    `cost_micro` is in millionths of a dollar, None where the price is unknown. `attempt_id` is the log's row
    that paid for it; `cached` says that this call paid nothing.
    """

    content: str
    finish_reason: str
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    usage: Usage = Usage()
    cost_micro: int | None = None
    role: str = ""
    provider: str = ""
    model: str = ""
    attempt_id: str = ""
    attempts: int = 1
    cached: bool = False

    def message(self) -> dict[str, JsonValue]:
        """The assistant message that continues a conversation."""
        message: dict[str, Any] = {"role": "assistant", "content": self.content}
        if self.tool_calls:
            message["tool_calls"] = [
                {"id": each.id, "type": "function", "function": {"name": each.name, "arguments": each.arguments}}
                for each in self.tool_calls
            ]
        return message


class EmbeddingResult(_Frozen):
    """One vector for each input, in order."""

    vectors: tuple[tuple[float, ...], ...]
    usage: Usage = Usage()
    cost_micro: int | None = None
    role: str = ""
    provider: str = ""
    model: str = ""
    attempt_id: str = ""
    attempts: int = 1
    cached: bool = False
