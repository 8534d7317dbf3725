"""Conversations as plain records, and back.

mellea's contexts do not pickle, and hold what made them. A record is a message with its usage: it goes with a run
from process to process, and into a session's store. Images of a message stay behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from mellea.core import Context, ModelOutputThunk
from mellea.stdlib.components import Message
from mellea.stdlib.context import ChatContext

from mellea_runtime.errors import ContextNotPortable
from mellea_runtime.internals import CachedFormatter, computed
from runtime_core.sessions.records import RecordUsage, SessionRecord

NewId = Callable[[], str]


def freeze(
    context: Context, *, run_id: str, new_id: NewId, node: str | None = None, since: Context | None = None
) -> tuple[SessionRecord, ...]:
    """The records of a context, in its order; with `since`, of what was added to that one.

    Raises ContextNotPortable for an answer that is not there yet, and where `context` does not continue `since`.
    """
    spans = context.as_list() if since is None else delta(since, context)
    formatter = CachedFormatter("")
    return tuple(
        _record(message, span, formatter.print(message), record_id=new_id(), run_id=run_id, node=node)
        for span in spans
        for message in formatter.to_chat_messages([_computed(span)])
    )


def thaw(records: Iterable[SessionRecord], context: ChatContext | None = None) -> ChatContext:
    """`context`, or an empty one, with the records added."""
    context = ChatContext() if context is None else context
    for record in records:
        calls: list[dict[str, Any]] | None = [dict(call) for call in record.tool_calls] or None
        message = Message(record.role, record.text, tool_calls=calls, tool_call_id=record.tool_call_id)
        if record.role == "assistant":
            context = context.add(computed(record.text, parsed=message, usage=_usage_of(record)))
        else:
            context = context.add(message)
    return context


def delta(old: Context, new: Context) -> list[Any]:
    """What was added to `old` to make `new`. Raises ContextNotPortable if `new` does not continue `old`."""
    added: list[Any] = []
    node: Context | None = new
    while node is not old:
        if node is None or (node.is_root_node and not old.is_root_node):
            raise ContextNotPortable("the context does not continue the other one; it was reset or compacted")
        if node.is_root_node:
            break  # empty contexts are alike
        added.append(node.node_data)
        node = node.previous_node
    added.reverse()
    return added


def merge(*branches: Sequence[SessionRecord]) -> tuple[SessionRecord, ...]:
    """The records of branches one after the other, each record once: what they share comes first."""
    merged: dict[str, SessionRecord] = {}
    for record in chain.from_iterable(branches):
        merged.setdefault(record.record_id, record)
    return tuple(merged.values())


def _computed(span: Any) -> Any:
    if isinstance(span, ModelOutputThunk) and not span.is_computed():
        raise ContextNotPortable("the context holds an answer that is not there yet; await it first")
    return span


def _record(message: Message, span: Any, text: str, *, record_id: str, run_id: str, node: str | None) -> SessionRecord:
    usage = span.generation.usage if isinstance(span, ModelOutputThunk) else None
    role: Any = message.role
    return SessionRecord(
        record_id=record_id,
        run_id=run_id,
        role=role,
        text=text,
        tool_calls=tuple(message.tool_calls or ()),
        tool_call_id=message.tool_call_id,
        usage=_record_usage(usage) if usage else None,
        node=node,
    )


def _record_usage(usage: Mapping[str, Any]) -> RecordUsage:
    return RecordUsage(input_tokens=usage.get("prompt_tokens") or 0, output_tokens=usage.get("completion_tokens") or 0)


def _usage_of(record: SessionRecord) -> dict[str, int] | None:
    if record.usage is None:
        return None
    told, answered = record.usage.input_tokens, record.usage.output_tokens
    return {"prompt_tokens": told, "completion_tokens": answered, "total_tokens": told + answered}
