"""An answer as it goes over the wire, before anybody decided when and how much of it to send."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from llmhub_runtime.sim.request import Completion, ModelRequest, Vectors

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
JSON_LINES = "application/x-ndjson"
FINGERPRINT = "agentflow-sim"

TwistedBody = Literal["empty_choices", "null_content", "wrong_types"]

_PIECE = re.compile(r"\s*\S{1,16}|\s+")


@dataclass(frozen=True, slots=True)
class Frame:
    """Bytes sent in one go; `text_bytes` is how much of the answer's text they carry."""

    data: bytes
    text_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Payload:
    """`frames` carry the answer, `tail` ends it (finish reason, usage, end marker)."""

    content_type: str
    frames: tuple[Frame, ...]
    tail: tuple[Frame, ...] = ()
    streamed: bool = False
    tells_usage: bool = True


@dataclass(frozen=True, slots=True)
class Stamp:
    """What makes one answer different from an equal one."""

    seq: int
    time: float


class Wire(Protocol):
    """One endpoint's language: how requests are read and answers are written."""

    @property
    def kind(self) -> str:
        """chat or embedding"""
        ...

    @property
    def stream_type(self) -> str:
        """The content type of a streamed answer."""
        ...

    def parse(self, body: dict[str, Any]) -> ModelRequest:
        """Raises SimBadRequest."""
        ...

    def render(self, request: Any, result: Any, stamp: Stamp) -> Payload: ...

    def twisted(self, request: Any, kind: TwistedBody, stamp: Stamp) -> dict[str, Any]:
        """A JSON answer that is not what the API promises."""
        ...

    def error(self, status: int, message: str) -> dict[str, Any]:
        """The API's error form."""
        ...

    def frame(self, request: Any, data: bytes) -> Frame:
        """One document, framed for the answer the request asked for (an event, a line, or as it is)."""
        ...


Result = Completion | Vectors


def dumps(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def pieces(text: str) -> list[str]:
    """The text in words, as a stream sends it; joined again they are the text."""
    return _PIECE.findall(text)


def whole(content_type: str, data: bytes, *, text_bytes: int = 0, tells_usage: bool = True) -> Payload:
    """An answer that is sent in one piece."""
    return Payload(content_type, (Frame(data, text_bytes),), tells_usage=tells_usage)
