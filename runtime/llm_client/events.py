"""What a stream is made of. The last event is always StreamEnded or StreamFailed, and there is exactly one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from llm_client.results import CompletionResult


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TextDelta(_Frozen):
    kind: Literal["text"] = "text"
    text: str


class ReasoningDelta(_Frozen):
    kind: Literal["reasoning"] = "reasoning"
    text: str


class ToolCallDelta(_Frozen):
    """A piece of a tool call; `index` says which one. `id` and `name` come with its first piece."""

    kind: Literal["tool_call"] = "tool_call"
    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class StreamEnded(_Frozen):
    """The whole answer, with its usage."""

    kind: Literal["ended"] = "ended"
    result: CompletionResult


class StreamFailed(_Frozen):
    """What was sent so far is not an answer. `code` is the error's, `message` a sentence."""

    kind: Literal["failed"] = "failed"
    code: str
    message: str
    retry_after: float | None = None


StreamEvent = Annotated[
    TextDelta | ReasoningDelta | ToolCallDelta | StreamEnded | StreamFailed, Field(discriminator="kind")
]
