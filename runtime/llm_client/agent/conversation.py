"""One run's messages and totals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from llm_client.agent.results import AgentResult, ToolCallRecord
from llm_client.results import CompletionResult, ToolCall
from llm_client.tools.strict_json import Unreadable, read_arguments
from runtime_core.call_log.records import Usage

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_-]")
_MOST_TOKENS = 2**53
_MAX_NAME = 80
"""Longer than any tool's, so that a name that was cut is still unknown."""


def opening(prompt: str | Sequence[Mapping[str, JsonValue]], system: str | None) -> list[dict[str, JsonValue]]:
    """The first messages; messages that bring a system message keep theirs."""
    messages: list[dict[str, JsonValue]] = (
        [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(message) for message in prompt]
    )
    if system and not (messages and messages[0].get("role") == "system"):
        messages.insert(0, {"role": "system", "content": system})
    return messages


class Conversation:
    """Grows turn by turn. `calls` are what the last answer asks for, each with an id of its own."""

    def __init__(self, messages: list[dict[str, JsonValue]]) -> None:
        self.messages = messages
        self.turns = 0
        self.calls: list[ToolCall] = []
        self.records: list[ToolCallRecord] = []
        self.content = ""
        self._finish_reason = ""
        self._usage = Usage()
        self._cost: int | None = 0

    def heard(self, result: CompletionResult) -> None:
        """Take in an answer. A call that no provider would accept as history is kept there in a form that it does."""
        self.turns += 1
        self.content, self._finish_reason = result.content, result.finish_reason
        self.calls = _with_own_ids(result.tool_calls, self.turns)
        echoed = tuple(map(_acceptable, self.calls))
        self.messages.append(result.model_copy(update={"tool_calls": echoed}).message())
        self._usage = _sum(self._usage, result.usage)
        paid = 0 if result.cached else result.cost_micro
        self._cost = None if self._cost is None or paid is None else self._cost + paid

    def told(self, records: Iterable[ToolCallRecord], texts: Iterable[str]) -> None:
        """Take in what the calls of the last answer came to, in their order."""
        self.records += records
        for call, text in zip(self.calls, texts, strict=True):
            self.messages.append({"role": "tool", "tool_call_id": call.id, "content": text})

    def ask_again(self, problem: str) -> None:
        """Say what is wrong with the last answer."""
        text = (
            f"Your answer does not fit the required schema: {problem}. Answer again, with nothing but the JSON value."
        )
        self.messages.append({"role": "user", "content": text})

    def result(self, output: Any = None) -> AgentResult:
        return AgentResult(
            content=self.content,
            messages=tuple(self.messages),
            turns=self.turns,
            tool_calls=tuple(self.records),
            usage=self._usage,
            cost_micro=self._cost,
            finish_reason=self._finish_reason,
            output=output,
        )


def _with_own_ids(calls: Iterable[ToolCall], turn: int) -> list[ToolCall]:
    """Some models repeat an id, or leave it empty: then answers could not be told apart."""
    seen: set[str] = set()
    owned: list[ToolCall] = []
    for index, call in enumerate(calls):
        fresh = call.id if call.id and call.id not in seen else f"call-{turn}-{index}"
        seen.add(fresh)
        owned.append(call.model_copy(update={"id": fresh, "name": call.name[:_MAX_NAME]}))
    return owned


def _acceptable(call: ToolCall) -> ToolCall:
    """Providers refuse a whole conversation for one name or one JSON text that they could not have read."""
    try:
        read_arguments(call.arguments)
        arguments = call.arguments if call.arguments.strip() else "{}"
    except Unreadable:
        arguments = "{}"
    name = _NOT_IN_A_NAME.sub("_", call.name[:64]) or "unknown"
    return call.model_copy(update={"name": name, "arguments": arguments})


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        input=min(_MOST_TOKENS, one.input + other.input),
        output=min(_MOST_TOKENS, one.output + other.output),
        cached=min(_MOST_TOKENS, one.cached + other.cached),
        reasoning=min(_MOST_TOKENS, one.reasoning + other.reasoning),
        estimated=one.estimated or other.estimated,
    )
