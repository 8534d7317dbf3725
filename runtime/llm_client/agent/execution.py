"""The tool calls of one turn, in parallel. What goes wrong in one is told to the model, not raised."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_client.agent.middleware.chain import Next, ToolInvocation
from llm_client.agent.results import ToolCallRecord, ToolOutcome
from llm_client.errors import CallRefused, LLMClientError, ToolError, UnknownTool
from llm_client.results import ToolCall
from llm_client.spec import RequestContext
from llm_client.tools import Tool
from llm_client.tools.strict_json import MAX_ARGUMENTS
from runtime_core.clock import Clock

MOST_CALLS = 64
"""Of one turn; the rest are refused."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What the calls of one turn have in common; `before` counts the calls of earlier turns."""

    number: int
    before: int
    context: RequestContext
    injected: Mapping[str, Any]


class ToolRunner:
    """Runs calls through the middleware, at most `max_parallel` at a time."""

    def __init__(self, tools: Mapping[str, Tool], chain: Next, *, max_parallel: int, clock: Clock) -> None:
        self._tools = tools
        self._chain = chain
        self._max_parallel = max_parallel
        self._clock = clock

    async def run(self, calls: Sequence[ToolCall], turn: Turn) -> tuple[list[ToolCallRecord], list[str]]:
        """Records and texts for the model, in the order of the calls.

        A ToolError or a CallRefused becomes such a text. Anything else that a middleware raises ends the others
        and is raised.
        """
        slots = asyncio.Semaphore(self._max_parallel)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._one(call, turn, position, slots)) for position, call in enumerate(calls)
                ]
        except BaseExceptionGroup as failed:
            raise _first(failed) from None
        ended = [task.result() for task in tasks]
        return [record for record, _ in ended], [text for _, text in ended]

    async def _one(
        self, call: ToolCall, turn: Turn, position: int, slots: asyncio.Semaphore
    ) -> tuple[ToolCallRecord, str]:
        async with slots:
            began = self._clock.monotonic()
            outcome, code = ToolOutcome.DONE, None
            try:
                text = await self._answer(call, turn, position)
            except (ToolError, CallRefused) as exc:
                outcome, code, text = ToolOutcome.of(exc), exc.code, _told(exc)
            record = ToolCallRecord(
                id=call.id,
                name=call.name,
                arguments=call.arguments[:MAX_ARGUMENTS],
                turn=turn.number,
                outcome=outcome,
                error=code,
                duration_s=self._clock.monotonic() - began,
            )
            return record, text

    async def _answer(self, call: ToolCall, turn: Turn, position: int) -> str:
        if position >= MOST_CALLS:
            raise CallRefused(f"One turn may ask for {MOST_CALLS} calls.", reason="too_many_calls")
        tool = self._tools.get(call.name)
        if tool is None:
            names = ", ".join(self._tools) or "none"
            raise UnknownTool(f"There is no tool {call.name!a}; the tools are: {names}.", tool=call.name)
        return await self._chain(
            ToolInvocation(
                tool=tool,
                call_id=call.id,
                arguments=tool.parse(call.arguments),
                context=turn.context.child(),
                turn=turn.number,
                number=turn.before + position + 1,
                injected=turn.injected,
            )
        )


def _told(error: LLMClientError) -> str:
    return json.dumps({"error": {"code": error.code, "message": str(error)}}, ensure_ascii=False)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
