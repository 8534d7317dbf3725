"""The streamed form of an OpenAI chat completion, and the parts it shares with the whole form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmhub_runtime.sim.payload import EVENT_STREAM, FINGERPRINT, Frame, Payload, Stamp, dumps, pieces
from llmhub_runtime.sim.request import ChatRequest, Completion, ToolCall, Usage

_DONE = Frame(b"data: [DONE]\n\n")


def streamed(request: ChatRequest, result: Completion, stamp: Stamp) -> Payload:
    """One event per piece of text or of tool arguments; finish reason, usage and end marker in the tail."""
    shared = envelope(request, stamp, "chat.completion.chunk")
    if request.tells_usage:
        # The API sends a null in every event but the last when usage was asked for.
        shared["usage"] = None

    def chunk(delta: dict[str, Any], finish: str | None = None, size: int = 0) -> Frame:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return event(dumps(shared | {"choices": [choice]}), size)

    (first, size), *rest = _deltas(result)
    frames = [
        chunk({"role": "assistant", **first}, size=size),
        *(chunk(delta, size=size) for delta, size in rest),
    ]
    tail = [chunk({}, finish=result.finish_reason)]
    if request.tells_usage and result.usage is not None:
        tail.append(event(dumps(shared | {"choices": [], "usage": usage_body(result.usage)})))
    tells_usage = request.tells_usage and result.usage is not None
    return Payload(EVENT_STREAM, tuple(frames), (*tail, _DONE), streamed=True, tells_usage=tells_usage)


def _deltas(result: Completion) -> list[tuple[dict[str, Any], int]]:
    """What each event adds, with its share of the counted bytes; at least one."""
    deltas = [({"content": piece}, len(piece.encode())) for piece in pieces(result.text)]
    deltas += [delta for index, call in enumerate(result.tool_calls) for delta in _call_deltas(index, call)]
    return deltas or [({"content": ""}, 0)]


def _call_deltas(index: int, call: ToolCall) -> Iterator[tuple[dict[str, Any], int]]:
    head = call_body(call) | {"index": index, "function": {"name": call.name, "arguments": ""}}
    yield {"tool_calls": [head]}, len(call.name.encode())
    for piece in pieces(call.arguments):
        part = {"index": index, "function": {"arguments": piece}}
        yield {"tool_calls": [part]}, len(piece.encode())


def envelope(request: ChatRequest, stamp: Stamp, kind: str) -> dict[str, Any]:
    """What every document of an answer says about itself."""
    return {
        "id": f"chatcmpl-sim-{stamp.seq}-{request.digest[:12]}",
        "object": kind,
        "created": int(stamp.time),
        "model": request.model,
        "system_fingerprint": FINGERPRINT,
    }


def usage_body(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def call_body(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def event(data: bytes, size: int = 0) -> Frame:
    """One server-sent event."""
    return Frame(b"data: " + data + b"\n\n", size)
