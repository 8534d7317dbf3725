"""From an HTTP request to a plan and a log record: the whole decision, without any I/O."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from llmhub_runtime.sim import ollama_api, openai_api
from llmhub_runtime.sim.answers import complete, embed_all
from llmhub_runtime.sim.director import Decision, Director, Facts
from llmhub_runtime.sim.errors import SimBadRequest
from llmhub_runtime.sim.log import Received
from llmhub_runtime.sim.payload import JSON, JSON_LINES, Frame, Payload, Stamp, Wire, dumps, whole
from llmhub_runtime.sim.plan import Plan, plan_error, plan_reply
from llmhub_runtime.sim.request import ChatRequest, ModelRequest
from llmhub_runtime.sim.script import Script
from llmhub_runtime.sim.strict_json import parse_json

_log = logging.getLogger(__name__)

_OPENAI: Wire = openai_api.OpenAIChat()
_OLLAMA: Wire = ollama_api.OllamaChat()
_WIRES: dict[str, Wire] = {
    # Also without /v1: the address this server prints is a valid base for either kind of client.
    **dict.fromkeys(("/v1/chat/completions", "/chat/completions"), _OPENAI),
    **dict.fromkeys(("/v1/embeddings", "/embeddings"), openai_api.OpenAIEmbeddings()),
    "/api/chat": _OLLAMA,
    "/api/generate": ollama_api.OllamaGenerate(),
    "/api/embed": ollama_api.OllamaEmbed(),
    "/api/embeddings": ollama_api.OllamaEmbeddings(),
}


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """Header names are lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


def decide(
    http: HttpRequest, director: Director, stamp: Stamp, *, refused: SimBadRequest | None = None
) -> tuple[Received, Plan]:
    """What to log and what to answer. Never raises: a request that cannot be served gets an error plan.

    `refused` says why the body was not even read.
    """
    received = Received(
        seq=stamp.seq,
        time=stamp.time,
        method=http.method,
        path=http.path,
        headers=http.headers,
        body=http.body,
    )
    wire = _WIRES.get(http.path, _OLLAMA if http.path.startswith("/api/") else _OPENAI)
    try:
        if refused is not None:
            raise refused
        if http.path not in _WIRES:
            plan = _about_models(http, director.script, stamp)
        elif http.method != "POST":
            raise SimBadRequest(f"{http.path} takes POST, not {http.method}.", status=405)
        else:
            received, plan = _model_call(http, received, wire, director, stamp)
    except SimBadRequest as exc:
        plan = plan_error(wire, exc.status, str(exc), decided="bad_request")
    except Exception as exc:  # noqa: BLE001 - the edge of a request: answer 500 and go on serving
        _log.exception("The simulated model failed on %s %s.", http.method, http.path)
        plan = plan_error(wire, 500, f"The simulated model failed: {type(exc).__name__}.", decided="internal_error")
    return replace(received, decided=plan.decided, usage=plan.usage), plan


def _model_call(
    http: HttpRequest, received: Received, wire: Wire, director: Director, stamp: Stamp
) -> tuple[Received, Plan]:
    body = _object(http.body)
    request = wire.parse(body)
    role = _role(http.headers, body)
    received = replace(
        received,
        kind=wire.kind,
        model=request.model,
        role=role,
        messages_hash=request.messages_hash,
        stream=request.stream,
        prompt_tokens=request.prompt_tokens,
    )
    decision = director.decide(_facts(request, wire.kind, role, http.headers))
    received = replace(received, rule=decision.rule)
    try:
        plan = plan_reply(lambda: _answer(wire, request, decision, stamp), decision.reply, wire, request, stamp)
    except SimBadRequest as exc:
        plan = plan_error(wire, exc.status, str(exc), decided="bad_request")
    return received, plan


def _answer(wire: Wire, request: ModelRequest, decision: Decision, stamp: Stamp) -> Plan:
    if isinstance(request, ChatRequest):
        completion = complete(request, decision)
        return Plan(wire.render(request, completion, stamp), usage=completion.usage, decided=completion.decided)
    vectors = embed_all(request, decision)
    return Plan(wire.render(request, vectors, stamp), usage=vectors.usage, decided="embedding")


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = parse_json(body)
    except ValueError as exc:
        raise SimBadRequest(f"The body is not JSON: {exc}.") from exc
    if not isinstance(value, dict):
        raise SimBadRequest("The body must be a JSON object.")
    return value


def _role(headers: Mapping[str, str], body: Mapping[str, Any]) -> str | None:
    metadata = body.get("metadata")
    named = (
        headers.get("x-agentflow-role"),
        metadata.get("role") if isinstance(metadata, dict) else None,
        body.get("user"),
    )
    return next((role for role in named if isinstance(role, str) and role), None)


def _facts(request: ModelRequest, kind: str, role: str | None, headers: Mapping[str, str]) -> Facts:
    last_role = request.turns[-1].role if isinstance(request, ChatRequest) else None
    return Facts(kind=kind, model=request.model, role=role, texts=request.texts, last_role=last_role, headers=headers)


def _about_models(http: HttpRequest, script: Script, stamp: Stamp) -> Plan:
    """The questions clients ask beside model calls."""
    models, created = script.models, int(stamp.time)
    match http.method, http.path:
        case "GET" | "HEAD", "/":
            return Plan(whole("text/plain", b"agentflow-sim is running (it also speaks Ollama)"), decided="info")
        case "GET", "/v1/models" | "/models":
            return _info(openai_api.model_list(models, created))
        case "GET", path if path.startswith("/v1/models/"):
            return _info(openai_api.model_card(path.removeprefix("/v1/models/"), created))
        case "GET", "/api/tags":
            return _info(ollama_api.tags(models, stamp.time))
        case "GET", "/api/ps":
            return _info(ollama_api.running(models, stamp.time))
        case "GET" | "HEAD", "/api/version":
            return _info({"version": ollama_api.VERSION})
        case "POST", "/api/show":
            return _info(ollama_api.show(_named_model(http.body), stamp.time))
        case "POST", "/api/pull":
            return _pull(_object(http.body))
        case method, path:
            raise SimBadRequest(f"The simulated model has no {method} {path}.", status=404)


def _info(value: dict[str, Any]) -> Plan:
    return Plan(whole(JSON, dumps(value), tells_usage=False), decided="info")


def _named_model(body: bytes) -> str:
    named = _object(body)
    model = named.get("model") or named.get("name")
    if not isinstance(model, str):
        raise SimBadRequest("'model' must be a text.", param="model")
    return model


def _pull(body: dict[str, Any]) -> Plan:
    """Every model is here already."""
    if body.get("stream") is False:
        return _info({"status": "success"})
    lines = tuple(Frame(dumps({"status": status}) + b"\n") for status in ("pulling manifest", "success"))
    return Plan(Payload(JSON_LINES, lines, streamed=True, tells_usage=False), decided="info")
