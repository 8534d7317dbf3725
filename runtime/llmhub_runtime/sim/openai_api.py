"""The OpenAI language: chat completions (whole and streamed), embeddings, the model list."""

from __future__ import annotations

import base64
import struct
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
from llmhub_runtime.sim.openai_stream import call_body, envelope, event, streamed, usage_body
from llmhub_runtime.sim.payload import (
    EVENT_STREAM,
    FINGERPRINT,
    JSON,
    Frame,
    Payload,
    Stamp,
    TwistedBody,
    dumps,
    whole,
)
from llmhub_runtime.sim.request import (
    ChatRequest,
    Completion,
    EmbeddingRequest,
    ToolOffer,
    Vectors,
    canonical_hash,
)

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def error_body(status: int, message: str, param: str | None = None) -> dict[str, Any]:
    kind = _ERROR_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": None}}


def model_list(models: tuple[str, ...], created: int) -> dict[str, Any]:
    return {"object": "list", "data": [model_card(name, created) for name in models]}


def model_card(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": FINGERPRINT}


class OpenAIChat:
    """POST /v1/chat/completions."""

    kind = "chat"
    stream_type = EVENT_STREAM

    def parse(self, body: dict[str, Any]) -> ChatRequest:
        if (integer_of(body, "n", least=1) or 1) > 1:
            raise SimBadRequest("The simulated model gives one choice; 'n' must be 1.", param="n")
        tools = tools_of(body)
        form, schema = _response_form(object_of(body, "response_format"))
        limit = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
        stream = flag_of(body, "stream", default=False)
        return ChatRequest(
            model=text_of(body, "model"),
            turns=turns_of(body.get("messages")),
            messages_hash=canonical_hash(body["messages"]),
            stream=stream,
            tells_usage=not stream or flag_of(object_of(body, "stream_options"), "include_usage", default=False),
            tools=tools,
            tool_choice=_tool_choice(body.get("tool_choice"), tools),
            form=form,
            schema=schema,
            max_tokens=integer_of(body, limit, least=1),
            stop=stops_of(body),
            seed=integer_of(body, "seed"),
        )

    def render(self, request: ChatRequest, result: Completion, stamp: Stamp) -> Payload:
        if request.stream:
            return streamed(request, result, stamp)
        message: dict[str, Any] = {"role": "assistant", "content": result.text or None, "refusal": None}
        if result.tool_calls:
            message["tool_calls"] = [call_body(call) for call in result.tool_calls]
        else:
            message["content"] = result.text
        body = envelope(request, stamp, "chat.completion")
        body["choices"] = [{"index": 0, "message": message, "finish_reason": result.finish_reason, "logprobs": None}]
        if result.usage is not None:
            body["usage"] = usage_body(result.usage)
        return whole(JSON, dumps(body), text_bytes=result.size, tells_usage=result.usage is not None)

    def twisted(self, request: ChatRequest, kind: TwistedBody, stamp: Stamp) -> dict[str, Any]:
        body = envelope(request, stamp, "chat.completion.chunk" if request.stream else "chat.completion")
        part = "delta" if request.stream else "message"
        match kind:
            case "empty_choices":
                return body | {"choices": []}
            case "null_content":
                message = {"role": "assistant", "content": None}
                return body | {"choices": [{"index": 0, part: message, "finish_reason": "stop"}]}
            case "wrong_types":
                choice = {"index": "zero", part: "text", "finish_reason": 1}
                return body | {"id": 7, "choices": [choice], "usage": "many"}

    def error(self, status: int, message: str) -> dict[str, Any]:
        return error_body(status, message)

    def frame(self, request: ChatRequest, data: bytes) -> Frame:
        return event(data) if request.stream else Frame(data)


class OpenAIEmbeddings:
    """POST /v1/embeddings."""

    kind = "embedding"
    stream_type = JSON

    def parse(self, body: dict[str, Any]) -> EmbeddingRequest:
        encoding = body.get("encoding_format") or "float"
        if encoding not in ("float", "base64"):
            raise SimBadRequest("'encoding_format' must be float or base64.", param="encoding_format")
        return EmbeddingRequest(
            model=text_of(body, "model"),
            texts=inputs_of(body),
            messages_hash=canonical_hash(body["input"]),
            dimensions=dimensions_of(body),
            as_base64=encoding == "base64",
        )

    def render(self, request: EmbeddingRequest, result: Vectors, stamp: Stamp) -> Payload:
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": _packed(vector) if request.as_base64 else vector,
            }
            for index, vector in enumerate(result.vectors)
        ]
        body: dict[str, Any] = {
            "object": "list",
            "model": request.model,
            "data": data,
            "system_fingerprint": FINGERPRINT,
        }
        if result.usage is not None:
            tokens = result.usage.prompt_tokens
            body["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
        return whole(JSON, dumps(body), tells_usage=result.usage is not None)

    def twisted(self, request: EmbeddingRequest, kind: TwistedBody, stamp: Stamp) -> dict[str, Any]:
        body: dict[str, Any] = {"object": "list", "model": request.model}
        match kind:
            case "empty_choices":
                return body | {"data": []}
            case "null_content":
                return body | {"data": [{"object": "embedding", "index": 0, "embedding": None}]}
            case "wrong_types":
                return body | {
                    "data": [{"object": 1, "index": "zero", "embedding": {"x": "y"}}],
                    "usage": "many",
                }

    def error(self, status: int, message: str) -> dict[str, Any]:
        return error_body(status, message)

    def frame(self, request: EmbeddingRequest, data: bytes) -> Frame:
        return Frame(data)


def _response_form(wanted: dict[str, Any]) -> tuple[Literal["text", "json", "schema"], Any]:
    match wanted.get("type", "text"):
        case "text":
            return "text", True
        case "json_object":
            return "json", True
        case "json_schema":
            schema = object_of(wanted, "json_schema").get("schema")
            if isinstance(schema, dict):
                return "schema", schema
            raise SimBadRequest("'response_format.json_schema.schema' must be a JSON Schema.", param="response_format")
        case _:
            raise SimBadRequest(
                "'response_format.type' must be text, json_object or json_schema.", param="response_format"
            )


def _tool_choice(wanted: Any, tools: tuple[ToolOffer, ...]) -> str:
    if wanted is None:
        return "auto"
    if wanted in ("auto", "none", "required") and (tools or wanted != "required"):
        return wanted
    function = wanted.get("function") if isinstance(wanted, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if name not in {tool.name for tool in tools}:
        raise SimBadRequest(
            "'tool_choice' must be auto, none, required or one of the offered tools.", param="tool_choice"
        )
    return f"={name}"


def _packed(vector: tuple[float, ...]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
