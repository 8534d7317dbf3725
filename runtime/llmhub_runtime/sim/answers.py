"""What the model says: the script's exact answer, or one derived from the request alone.

The default answer depends on the messages, the model name and the seed, and on nothing else:
a tool call while the last message is not a tool's result, JSON where JSON was asked for, else a sentence
that quotes the last message.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import JsonValue

from llmhub_runtime.sim.director import Decision
from llmhub_runtime.sim.embeddings import embed
from llmhub_runtime.sim.request import (
    ChatRequest,
    Completion,
    EmbeddingRequest,
    ToolCall,
    ToolOffer,
    Turn,
    Usage,
    Vectors,
    answer_size,
)
from llmhub_runtime.sim.schema_answers import schema_answer
from llmhub_runtime.sim.script import Reply, ScriptedToolCall
from llmhub_runtime.sim.tokens import count_tokens, cut_to_tokens, tokens_of_bytes

_QUOTE_LENGTH = 80
_PROMPT_WORDS = 8
_WORD = re.compile(r"\w[\w'-]*")
_OPENINGS = ("You wrote", "You asked", "About your message", "I read")
_CLOSINGS = (
    "Here is a simulated answer.",
    "This answer comes from the simulated model.",
    "A real model would say more.",
    "Nothing was looked up for it.",
)
_JSON_OBJECT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "answer": {"type": "string"},
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
    },
    "required": ["answer", "confidence"],
}


def complete(request: ChatRequest, decision: Decision) -> Completion:
    """The chat answer. Raises SimBadRequest when a schema cannot be satisfied."""
    reply = decision.reply
    if reply.tool_calls or decision.answer is not None:
        text = _as_text(decision.answer)
        calls = tuple(_scripted_call(call, request.digest, n) for n, call in enumerate(reply.tool_calls))
        return _completion(request, reply, text=text, calls=calls, finish="stop", decided="scripted")
    tool = _wanted_tool(request)
    if tool is not None:
        call = _default_call(tool, request)
        return _completion(request, reply, text="", calls=(call,), finish="stop", decided="tool_calls")
    text, finish = _limited(_default_text(request), request)
    return _completion(request, reply, text=text, calls=(), finish=finish, decided=request.form)


def embed_all(request: EmbeddingRequest, decision: Decision) -> Vectors:
    vectors = tuple(embed(text, request.dimensions) for text in request.texts)
    return Vectors(vectors=vectors, usage=_usage(decision.reply, request.prompt_tokens, 0))


def _completion(
    request: ChatRequest, reply: Reply, *, text: str, calls: tuple[ToolCall, ...], finish: str, decided: str
) -> Completion:
    finish = reply.finish_reason or ("tool_calls" if calls else finish)
    usage = _usage(reply, request.prompt_tokens, tokens_of_bytes(answer_size(text, calls)))
    return Completion(text=text, tool_calls=calls, finish_reason=finish, usage=usage, decided=decided)


def _usage(reply: Reply, prompt: int, completion: int) -> Usage | None:
    override = reply.usage
    if override == "missing":
        return None
    if override is None:
        return Usage(prompt, completion)
    return Usage(
        prompt if override.prompt_tokens is None else override.prompt_tokens,
        completion if override.completion_tokens is None else override.completion_tokens,
    )


def _as_text(answer: JsonValue) -> str:
    if answer is None:
        return ""
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


def _scripted_call(call: ScriptedToolCall, digest: str, index: int) -> ToolCall:
    arguments = call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)
    return ToolCall(id=call.id or f"call_{digest[:20]}{index}", name=call.name, arguments=arguments)


def _wanted_tool(request: ChatRequest) -> ToolOffer | None:
    """One round only: after a tool's result the model answers with text."""
    last = request.turns[-1]
    if not request.tools or request.tool_choice == "none" or last.role == "tool":
        return None
    if request.tool_choice.startswith("="):
        return next(tool for tool in request.tools if tool.name == request.tool_choice[1:])
    named = [tool for tool in request.tools if tool.name in last.text]
    return (named or request.tools)[0]


def _default_call(tool: ToolOffer, request: ChatRequest) -> ToolCall:
    arguments = schema_answer(tool.parameters, seed=request.digest, words=_words(request.turns))
    return ToolCall(id=f"call_{request.digest[:20]}0", name=tool.name, arguments=json.dumps(arguments))


def _default_text(request: ChatRequest) -> str:
    if request.form == "text":
        return _sentence(request)
    schema = request.schema if request.form == "schema" else _JSON_OBJECT
    value = schema_answer(schema, seed=request.digest, words=_words(request.turns))
    return json.dumps(value, ensure_ascii=False)


def _sentence(request: ChatRequest) -> str:
    last = _last_spoken(request.turns)
    choice = int(request.digest[:8], 16)
    opening = "The tool returned" if last.role == "tool" else _OPENINGS[choice % len(_OPENINGS)]
    closing = _CLOSINGS[choice // 16 % len(_CLOSINGS)]
    return f'[sim:{request.model}] {opening} "{_quote(last.text)}". {closing} (ref {request.digest[:8]})'


def _last_spoken(turns: tuple[Turn, ...]) -> Turn:
    """A tool's result if it came last, else the last thing the user said."""
    if turns[-1].role == "tool":
        return turns[-1]
    return next((turn for turn in reversed(turns) if turn.role == "user"), turns[-1])


def _words(turns: tuple[Turn, ...]) -> list[str]:
    return _WORD.findall(_last_spoken(turns).text[: 4 * _QUOTE_LENGTH])[:_PROMPT_WORDS]


def _quote(text: str) -> str:
    line = " ".join(text[: 4 * _QUOTE_LENGTH].split())
    if len(line) <= _QUOTE_LENGTH:
        return line
    head, _, _ = line[:_QUOTE_LENGTH].rpartition(" ")
    return f"{head or line[:_QUOTE_LENGTH]}..."


def _limited(text: str, request: ChatRequest) -> tuple[str, str]:
    """Cut at the first stop text, then at `max_tokens`; with the finish reason."""
    ends = [at for at in (text.find(stop) for stop in request.stop) if at >= 0]
    text = text[: min(ends)] if ends else text
    if request.max_tokens is not None and count_tokens(text) > request.max_tokens:
        return cut_to_tokens(text, request.max_tokens), "length"
    return text, "stop"
