"""One turn of a conversation, in the form that is stored and sent.

A record holds JSON values only, so it crosses processes and outlives the libraries that made it. Whose conversation
it is (scope, session) and where it stands there (version) is known to the store that keeps it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

Count = Annotated[int, Field(ge=0, le=2**53)]
Role = Literal["system", "user", "assistant", "tool"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RecordUsage(_Frozen):
    """Tokens that the turn took."""

    input_tokens: Count = 0
    output_tokens: Count = 0


class SessionRecord(_Frozen):
    """A message. `record_id` is made by whoever writes it, so that appending it twice adds it once.

    `tool_calls` are in the form of OpenAI's messages; `tool_call_id` says which of them a record of role `tool`
    answers. `node` is the flow's node that wrote it, in run `run_id`.
    """

    record_id: Annotated[str, Field(min_length=1, max_length=200)]
    run_id: str
    role: Role
    text: str
    tool_calls: tuple[dict[str, JsonValue], ...] = ()
    tool_call_id: str | None = None
    usage: RecordUsage | None = None
    node: str | None = None
