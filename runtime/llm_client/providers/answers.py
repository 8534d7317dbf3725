"""From any-llm's answers to ours. What is not an answer is refused here, whatever the SDK let pass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from llm_client.events import ReasoningDelta, TextDelta, ToolCallDelta
from llm_client.providers.protocol import Delta
from llm_client.results import CompletionResult, EmbeddingResult, ToolCall
from llm_client.spec import EmbeddingSpec, RequestSpec
from llm_client.usage import usage_of
from llmhub_runtime.models import ResolvedCall
from llmhub_runtime.wire import malformed_answer
from runtime_core.frozen import unchecked

_MAY_BE_EMPTY = frozenset({"length", "content_filter"})
"""Finish reasons of an answer that holds nothing and is one all the same."""


def read_completion(response: Any, call: ResolvedCall, request: RequestSpec, attempt_id: str) -> CompletionResult:
    """The first choice. Raises ProviderMalformedError."""
    choice = response.choices[0]
    message = choice.message
    try:
        calls = tuple(_tool_call(each) for each in message.tool_calls or ())
        content, finish, reasoning = message.content, choice.finish_reason, _text(getattr(message, "reasoning", None))
    except (AttributeError, TypeError) as exc:
        raise malformed_answer(response, call, detail="its message has a wrong shape.", code="wrong_shape") from exc
    if not isinstance(finish, str) or not finish:
        raise malformed_answer(response, call, detail="it has no finish reason.", code="no_finish_reason")
    if content is not None and not isinstance(content, str):
        raise malformed_answer(response, call, detail="its content is no text.", code="wrong_shape")
    if content is None and not calls and finish not in _MAY_BE_EMPTY:
        raise malformed_answer(response, call, detail="it says nothing.", code="no_content")
    return _result(call, request, attempt_id, content or "", reasoning, calls, finish, response.usage)


def read_embeddings(response: Any, call: ResolvedCall, request: EmbeddingSpec, attempt_id: str) -> EmbeddingResult:
    """One vector for each input, in their order. Raises ProviderMalformedError."""
    try:
        items = sorted(response.data, key=lambda item: item.index)
        vectors = tuple(tuple(map(float, item.embedding)) for item in items)
    except (AttributeError, TypeError, ValueError) as exc:
        raise malformed_answer(response, call, detail="an embedding is not numbers.", code="wrong_shape") from exc
    return unchecked(
        EmbeddingResult,
        vectors=vectors,
        usage=usage_of(getattr(response, "usage", None), request, delivered_bytes=0),
        cost_micro=None,
        role=call.role,
        provider=call.provider,
        model=call.model,
        attempt_id=attempt_id,
        attempts=1,
        cached=False,
    )


@dataclass(slots=True)
class _Piece:
    """A tool call that is coming in."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list[str])


class StreamReader:
    """Deltas out of chunks, and the whole answer at the end. Only the first choice is read."""

    def __init__(self, call: ResolvedCall, request: RequestSpec, attempt_id: str) -> None:
        self._call = call
        self._request = request
        self._attempt_id = attempt_id
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._pieces: dict[int, _Piece] = {}
        self._finish: str | None = None
        self._usage: Any = None

    def read(self, chunk: Any) -> Iterator[Delta]:
        """Raises ProviderMalformedError."""
        self._usage = getattr(chunk, "usage", None) or self._usage
        try:
            for choice in chunk.choices:
                if choice.index == 0:
                    self._finish = choice.finish_reason or self._finish
                    yield from self._deltas(choice.delta)
        except (AttributeError, TypeError) as exc:
            raise malformed_answer(chunk, self._call, detail="a piece has a wrong shape.", code="wrong_shape") from exc

    def result(self) -> CompletionResult:
        """The assembled answer. Raises ProviderMalformedError."""
        if not isinstance(self._finish, str):
            raise malformed_answer(self, self._call, detail="it has no finish reason.", code="no_finish_reason")
        calls = tuple(
            ToolCall(id=piece.id, name=piece.name, arguments="".join(piece.arguments))
            for _, piece in sorted(self._pieces.items())
        )
        if not self._text and not calls and self._finish not in _MAY_BE_EMPTY:
            raise malformed_answer(self, self._call, detail="it says nothing.", code="no_content")
        reasoning = "".join(self._reasoning) or None
        text = "".join(self._text)
        return _result(self._call, self._request, self._attempt_id, text, reasoning, calls, self._finish, self._usage)

    @property
    def usage(self) -> Any:
        """What the provider has said so far."""
        return self._usage

    def _deltas(self, delta: Any) -> Iterator[Delta]:
        if delta.content is not None:
            self._text.append(_checked(delta.content))
            if delta.content:
                yield unchecked(TextDelta, kind="text", text=delta.content)
        if thought := _text(getattr(delta, "reasoning", None)):
            self._reasoning.append(thought)
            yield unchecked(ReasoningDelta, kind="reasoning", text=thought)
        for each in delta.tool_calls or ():
            yield self._tool_call_delta(each)

    def _tool_call_delta(self, each: Any) -> ToolCallDelta:
        index = len(self._pieces) if each.index is None else each.index
        piece = self._pieces.setdefault(index, _Piece())
        name = _checked(each.function.name or "")
        arguments = _checked(each.function.arguments or "")
        piece.id = piece.id or _checked(each.id or "")
        piece.name += name
        piece.arguments.append(arguments)
        return ToolCallDelta(index=index, id=each.id or None, name=name or None, arguments=arguments)


def _result(
    call: ResolvedCall,
    request: RequestSpec,
    attempt_id: str,
    content: str,
    reasoning: str | None,
    calls: tuple[ToolCall, ...],
    finish: str,
    usage: Any,
) -> CompletionResult:
    return unchecked(
        CompletionResult,
        content=content,
        finish_reason=finish,
        tool_calls=calls,
        reasoning=reasoning,
        usage=usage_of(usage, request, delivered_bytes=delivered_bytes(content, reasoning, calls)),
        cost_micro=None,
        role=call.role,
        provider=call.provider,
        model=call.model,
        attempt_id=attempt_id,
        attempts=1,
        cached=False,
    )


def delivered_bytes(content: str, reasoning: str | None, calls: tuple[ToolCall, ...]) -> int:
    texts = (content, reasoning or "", *(text for each in calls for text in (each.name, each.arguments)))
    return sum(len(text.encode(errors="replace")) for text in texts)


def _tool_call(raw: Any) -> ToolCall:
    function = raw.function
    return ToolCall(id=_checked(raw.id), name=_checked(function.name), arguments=_checked(function.arguments))


def _text(reasoning: Any) -> str | None:
    return None if reasoning is None else _checked(reasoning.content)


def _checked(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where a text belongs")
    return value
