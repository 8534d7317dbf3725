"""A kept answer as the events of a stream."""

from __future__ import annotations

from collections.abc import Iterator

from llm_client.events import ReasoningDelta, StreamEnded, StreamEvent, TextDelta, ToolCallDelta
from llm_client.results import CompletionResult


def events_of(result: CompletionResult) -> Iterator[StreamEvent]:
    """Each part in one piece, then the end."""
    if result.reasoning:
        yield ReasoningDelta(text=result.reasoning)
    if result.content:
        yield TextDelta(text=result.content)
    for index, call in enumerate(result.tool_calls):
        yield ToolCallDelta(index=index, id=call.id, name=call.name, arguments=call.arguments)
    yield StreamEnded(result=result)
