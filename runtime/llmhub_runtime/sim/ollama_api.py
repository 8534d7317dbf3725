"""Ollama's language: chat, generate, embed, and what its clients ask about models."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from llmhub_runtime.sim.errors import SimBadRequest
from llmhub_runtime.sim.fields import (
    dimensions_of,
    flag_of,
    inputs_of,
    integer_of,
    object_of,
    stops_of,
    text_of,
    tools_of,
    turns_of,
)
from llmhub_runtime.sim.payload import (
    FINGERPRINT,
    JSON,
    JSON_LINES,
    Frame,
    Payload,
    Stamp,
    TwistedBody,
    dumps,
    pieces,
    whole,
)
from llmhub_runtime.sim.request import (
    ChatRequest,
    Completion,
    EmbeddingRequest,
    Vectors,
    answer_size,
    canonical_hash,
)

VERSION = "0.0.0-agentflow-sim"
_DETAILS = {
    "parent_model": "",
    "format": "sim",
    "family": FINGERPRINT,
    "families": [FINGERPRINT],
    "parameter_size": "0B",
    "quantization_level": "none",
}


def error_body(message: str) -> dict[str, Any]:
    return {"error": message}


def tags(models: tuple[str, ...], time: float) -> dict[str, Any]:
    return {"models": [_card(name, time) for name in models]}


def running(models: tuple[str, ...], time: float) -> dict[str, Any]:
    expires = {"expires_at": _when(time + 3600), "size_vram": 0, "context_length": 131072}
    return {"models": [_card(name, time) | expires for name in models]}


def show(model: str, time: float) -> dict[str, Any]:
    return {
        "modelfile": f"FROM {model}",
        "template": "{{ .Prompt }}",
        "details": _DETAILS,
        "model_info": {"general.architecture": FINGERPRINT},
        "capabilities": ["completion", "tools", "embedding"],
        "modified_at": _when(time),
    }


class _Ollama:
    """What all Ollama endpoints share."""

    stream_type = JSON_LINES

    def error(self, status: int, message: str) -> dict[str, Any]:
        return error_body(message)

    def frame(self, request: ChatRequest | EmbeddingRequest, data: bytes) -> Frame:
        return Frame(data + b"\n" if request.stream else data)


class _OllamaText(_Ollama):
    """Chat and generate: the same envelope around `message` or around `response`."""

    kind = "chat"

    def render(self, request: ChatRequest, result: Completion, stamp: Stamp) -> Payload:
        calls = [{"function": {"name": call.name, "arguments": call.parsed()}} for call in result.tool_calls]
        end = _envelope(request.model, stamp) | {
            "done": True,
            "done_reason": _done_reason(result.finish_reason),
        }
        if result.usage is not None:
            end |= _counts(result.usage.prompt_tokens, result.usage.completion_tokens)
        tells_usage = result.usage is not None
        if not request.stream:
            size = len(result.text.encode()) + sum(len(call.arguments.encode()) for call in result.tool_calls)
            return whole(JSON, dumps(end | self.part(result.text, calls)), text_bytes=size, tells_usage=tells_usage)
        start = _envelope(request.model, stamp) | {"done": False}
        frames = [_line(start | self.part(piece, []), len(piece.encode())) for piece in pieces(result.text)]
        if calls:
            frames.append(_line(start | self.part("", calls), answer_size("", result.tool_calls)))
        tail = (_line(end | self.part("", [])),)
        return Payload(JSON_LINES, tuple(frames), tail, streamed=True, tells_usage=tells_usage)

    def twisted(self, request: ChatRequest, kind: TwistedBody, stamp: Stamp) -> dict[str, Any]:
        end = _envelope(request.model, stamp) | {"done": True, "done_reason": "stop"}
        match kind:
            case "empty_choices":
                return end
            case "null_content":
                return end | self.part(None, [])
            case "wrong_types":
                return end | {"message": "text", "response": {"text": 1}, "done": "yes", "eval_count": "many"}

    def part(self, text: str | None, calls: list[dict[str, Any]]) -> dict[str, Any]:
        raise NotImplementedError


class OllamaChat(_OllamaText):
    """POST /api/chat."""

    def parse(self, body: dict[str, Any]) -> ChatRequest:
        return _chat_request(body, body.get("messages"))

    def part(self, text: str | None, calls: list[dict[str, Any]]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text}
        return {"message": message | ({"tool_calls": calls} if calls else {})}


class OllamaGenerate(_OllamaText):
    """POST /api/generate."""

    def parse(self, body: dict[str, Any]) -> ChatRequest:
        prompt = body.get("prompt") or ""
        system = [{"role": "system", "content": body["system"]}] if body.get("system") else []
        return _chat_request(body, [*system, {"role": "user", "content": prompt}])

    def part(self, text: str | None, calls: list[dict[str, Any]]) -> dict[str, Any]:
        return {"response": text}


class OllamaEmbed(_Ollama):
    """POST /api/embed."""

    kind = "embedding"
    field = "embeddings"

    def parse(self, body: dict[str, Any]) -> EmbeddingRequest:
        return _embedding_request(body, "input")

    def render(self, request: EmbeddingRequest, result: Vectors, stamp: Stamp) -> Payload:
        body: dict[str, Any] = {
            "model": request.model,
            "embeddings": result.vectors,
            "system_fingerprint": FINGERPRINT,
        }
        if result.usage is not None:
            body |= {"total_duration": 1, "load_duration": 1, "prompt_eval_count": result.usage.prompt_tokens}
        return whole(JSON, dumps(body), tells_usage=result.usage is not None)

    def twisted(self, request: EmbeddingRequest, kind: TwistedBody, stamp: Stamp) -> dict[str, Any]:
        wrong = {"empty_choices": [], "null_content": None, "wrong_types": {"x": "y"}}
        return {"model": request.model, self.field: wrong[kind]}


class OllamaEmbeddings(OllamaEmbed):
    """POST /api/embeddings, the older form: one prompt, one vector, no usage."""

    field = "embedding"

    def parse(self, body: dict[str, Any]) -> EmbeddingRequest:
        return _embedding_request(body, "prompt")

    def render(self, request: EmbeddingRequest, result: Vectors, stamp: Stamp) -> Payload:
        body = {"embedding": result.vectors[0], "system_fingerprint": FINGERPRINT}
        return whole(JSON, dumps(body), tells_usage=False)


def _chat_request(body: dict[str, Any], messages: Any) -> ChatRequest:
    options = object_of(body, "options")
    limit = integer_of(options, "num_predict")
    form, schema = _format(body.get("format"))
    return ChatRequest(
        model=text_of(body, "model"),
        turns=turns_of(messages),
        messages_hash=canonical_hash(messages),
        stream=flag_of(body, "stream", default=True),
        tools=tools_of(body),
        form=form,
        schema=schema,
        # Ollama says -1 and -2 for "no limit".
        max_tokens=limit if limit is not None and limit > 0 else None,
        stop=stops_of(options),
        seed=integer_of(options, "seed"),
    )


def _embedding_request(body: dict[str, Any], field: str) -> EmbeddingRequest:
    return EmbeddingRequest(
        model=text_of(body, "model"),
        texts=inputs_of(body, field),
        messages_hash=canonical_hash(body[field]),
        dimensions=dimensions_of(body),
    )


def _format(wanted: Any) -> tuple[Literal["text", "json", "schema"], Any]:
    if wanted is None or wanted == "":
        return "text", True
    if wanted == "json":
        return "json", True
    if isinstance(wanted, dict):
        return "schema", wanted
    raise SimBadRequest("'format' must be \"json\" or a JSON Schema.", param="format")


def _envelope(model: str, stamp: Stamp) -> dict[str, Any]:
    return {"model": model, "created_at": _when(stamp.time), "system_fingerprint": FINGERPRINT}


def _counts(prompt: int, completion: int) -> dict[str, int]:
    return {
        "total_duration": 1,
        "load_duration": 1,
        "prompt_eval_count": prompt,
        "prompt_eval_duration": 1,
        "eval_count": completion,
        "eval_duration": 1,
    }


def _done_reason(finish: str) -> str:
    return "stop" if finish == "tool_calls" else finish


def _card(name: str, time: float) -> dict[str, Any]:
    return {
        "name": name,
        "model": name,
        "modified_at": _when(time),
        "size": 0,
        "digest": "0" * 64,
        "details": _DETAILS,
        "owned_by": FINGERPRINT,
    }


def _when(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat().replace("+00:00", "Z")


def _line(value: dict[str, Any], size: int = 0) -> Frame:
    return Frame(dumps(value) + b"\n", size)
