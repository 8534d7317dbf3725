"""A model engine that answers from a script, in process: what an agent needs of an ExecutionEngine, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

from llm_client.cancellation import CancellationToken
from llm_client.events import StreamEnded, StreamEvent, TextDelta
from llm_client.results import CompletionResult, ToolCall
from llm_client.spec import RequestContext, RequestSpec
from runtime_core.call_log.records import Usage

Answer = str | CompletionResult | Exception
USAGE = Usage(input=10, output=5)


def asks_for(tool: str, arguments: str = "{}", times: int = 1) -> CompletionResult:
    """The answer of a model that wants a tool called."""
    calls = tuple(ToolCall(id=f"c{number}", name=tool, arguments=arguments) for number in range(times))
    return CompletionResult(content="", finish_reason="tool_calls", tool_calls=calls, usage=USAGE, cost_micro=100)


@dataclass
class ScriptedEngine:
    """`answer` is asked with the last message's text. Every call takes 15 tokens and 100 millionths of a dollar.

    `gate` holds every answer back until it is set; `cancelled` counts the calls that ended while they were held.
    """

    answer: Callable[[str], Answer] = lambda text: f"<{text}>"
    gate: asyncio.Event | None = None
    asked: list[tuple[RequestSpec, RequestContext]] = field(default_factory=list)
    cancelled: int = 0

    @property
    def prompts(self) -> list[str]:
        return [str(spec.messages[-1]["content"]) for spec, _ in self.asked]

    async def complete(
        self,
        spec: RequestSpec,
        *,
        context: RequestContext | None = None,
        cancellation: CancellationToken | None = None,
    ) -> CompletionResult:
        assert context is not None
        self.asked.append((spec, context))
        if self.gate is not None:
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        answer = self.answer(self.prompts[-1] if self.gate is None else str(spec.messages[-1]["content"]))
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, CompletionResult):
            return answer
        return CompletionResult(content=answer, finish_reason="stop", usage=USAGE, cost_micro=100)

    async def stream(
        self,
        spec: RequestSpec,
        *,
        context: RequestContext | None = None,
        cancellation: CancellationToken | None = None,
    ) -> AsyncGenerator[StreamEvent]:
        result = await self.complete(spec, context=context, cancellation=cancellation)
        for letter in result.content:
            yield TextDelta(text=letter)
        yield StreamEnded(result=result)
