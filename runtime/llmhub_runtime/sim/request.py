"""A request to the model, the same for every API the server speaks, and what comes out of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import JsonValue

from llmhub_runtime.sim.tokens import count_prompt


@dataclass(frozen=True, slots=True)
class Turn:
    """One message, reduced to who said it and its text."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class ToolOffer:
    """A tool the model may call; `parameters` is a JSON Schema."""

    name: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """`tool_choice` is auto, none, required, or `=name` for one tool. `schema` belongs to the form schema."""

    model: str
    turns: tuple[Turn, ...]
    messages_hash: str
    stream: bool
    tells_usage: bool = True
    tools: tuple[ToolOffer, ...] = ()
    tool_choice: str = "auto"
    form: Literal["text", "json", "schema"] = "text"
    schema: Mapping[str, Any] | bool = True
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(turn.text for turn in self.turns)

    @property
    def prompt_tokens(self) -> int:
        return count_prompt(turn.text for turn in self.turns)

    @property
    def digest(self) -> str:
        """What every default answer is derived from."""
        return hashlib.sha256(f"{self.messages_hash}\n{self.model}\n{self.seed}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    model: str
    texts: tuple[str, ...]
    messages_hash: str
    dimensions: int
    as_base64: bool = False
    stream: bool = False

    @property
    def prompt_tokens(self) -> int:
        return count_prompt(self.texts)


ModelRequest = ChatRequest | EmbeddingRequest


@dataclass(frozen=True, slots=True)
class Usage:
    """Reported token counts."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class ToolCall:
    """`arguments` is JSON text, as on the OpenAI wire."""

    id: str
    name: str
    arguments: str

    def parsed(self) -> JsonValue:
        """The arguments as data; text that is not JSON stays a text."""
        try:
            return json.loads(self.arguments)
        except ValueError:
            return self.arguments


def answer_size(text: str, calls: tuple[ToolCall, ...]) -> int:
    """The bytes that count as completion tokens: text, and names and arguments of tool calls."""
    return len(text.encode()) + sum(len(call.name.encode()) + len(call.arguments.encode()) for call in calls)


@dataclass(frozen=True, slots=True)
class Completion:
    """A chat answer; `usage` is None when the script says that it is missing."""

    text: str
    tool_calls: tuple[ToolCall, ...]
    finish_reason: str
    usage: Usage | None
    decided: str

    @property
    def size(self) -> int:
        return answer_size(self.text, self.tool_calls)


@dataclass(frozen=True, slots=True)
class Vectors:
    """An embedding answer."""

    vectors: tuple[tuple[float, ...], ...]
    usage: Usage | None


def canonical_hash(value: Any) -> str:
    """SHA-256 over the JSON form with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
