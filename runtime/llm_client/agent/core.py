"""`Agent`: a model that may ask for tools, asked again with their results until it answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from copy import copy
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, JsonValue

from llm_client.agent.conversation import Conversation, opening
from llm_client.agent.events import AgentEnded, AgentEvent
from llm_client.agent.execution import ToolRunner
from llm_client.agent.loop import Ask, Loop, ModelEngine, Run, StreamBroken
from llm_client.agent.middleware import Middleware, chained, default_middleware
from llm_client.agent.results import AgentResult
from llm_client.agent.structured import OutputSchema
from llm_client.cancellation import CancellationToken
from llm_client.errors import CallFailed, CallRefused, LLMClientError, ToolError
from llm_client.events import StreamEnded, StreamEvent, StreamFailed
from llm_client.spec import RequestContext, RequestSpec
from llm_client.tools import Tool
from runtime_core.clock import Clock, SystemClock

Prompt = str | Sequence[Mapping[str, JsonValue]]


class Agent:
    """A model, its tools, and the loop between them (source: agent-runtime, Agent middleware integration).

    `tools` are Tools, or functions that become one. The calls of a turn run in parallel, at most
    `max_parallel_tools` at a time; what goes wrong in one is told to the model. `max_turns` counts model calls.
    `use_middleware` puts the default chain around every tool call; `middleware` is a chain of your own, outermost
    first, and then decides alone. `output_schema`, a JSON Schema or a pydantic class, is sent with every turn; an
    answer that misses it gets one more turn to be mended. `injected` gives values to Injected parameters.

    An agent keeps nothing between runs and may run several at a time. Raises ToolError for tools that do not go
    together, SchemaInvalid for the output schema.
    """

    def __init__(
        self,
        *,
        engine: ModelEngine,
        tools: Iterable[Tool | Callable[..., Any]] = (),
        use_middleware: bool = False,
        middleware: Sequence[Middleware] | None = None,
        max_turns: int = 8,
        system: str | None = None,
        role: str | None = None,
        output_schema: Mapping[str, Any] | type[BaseModel] | None = None,
        params: Mapping[str, JsonValue] | None = None,
        max_parallel_tools: int = 8,
        injected: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
    ) -> None:
        if max_turns < 1 or max_parallel_tools < 1:
            raise ToolError("An agent needs at least one turn and one tool at a time.")
        clock = clock or SystemClock()
        if middleware is None:
            middleware = default_middleware(clock=clock) if use_middleware else ()
        self._engine = engine
        self._tools = _by_name(tools)
        self._system = system
        self._injected = dict(injected or {})
        self._middleware = tuple(middleware)
        self._max_parallel_tools = max_parallel_tools
        self._clock = clock
        self._loop = Loop(
            runner=self._runner(),
            max_turns=max_turns,
            role=role,
            params=dict(params or {}),
            tools=tuple(tool.spec() for tool in self._tools.values()),
            output=None if output_schema is None else OutputSchema(output_schema),
        )

    @property
    def tools(self) -> tuple[Tool, ...]:
        return tuple(self._tools.values())

    def governed(self, around: Callable[[ModelEngine], ModelEngine], middleware: Sequence[Middleware] = ()) -> Agent:
        """The same agent under somebody's rules: `around` its engine, and `middleware` outside of its own."""
        ruled = copy(self)
        ruled._engine = around(self._engine)
        ruled._middleware = (*middleware, *self._middleware)
        ruled._loop = replace(self._loop, runner=ruled._runner())
        return ruled

    async def run(
        self,
        prompt: Prompt,
        *,
        context: RequestContext | None = None,
        cancellation: CancellationToken | None = None,
        injected: Mapping[str, Any] | None = None,
    ) -> AgentResult:
        """The answer to a prompt, or to a whole conversation.

        Raises what the engine raises; TooManyTurns; CallMalformed for an answer that misses the output schema
        twice; CallCancelled; ToolError when a value that a tool needs is not injected.
        """
        run = self._begin(prompt, context, cancellation, injected, self._complete)
        async with aclosing(self._loop.events(run)) as events:
            async for event in events:
                if isinstance(event, AgentEnded):
                    return event.result
        raise AssertionError("the last event of a run is its end")

    async def stream(
        self,
        prompt: Prompt,
        *,
        context: RequestContext | None = None,
        cancellation: CancellationToken | None = None,
        injected: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[AgentEvent]:
        """`run` as it happens; what `run` raises is the last event, StreamFailed. A mended answer is streamed again."""
        try:
            run = self._begin(prompt, context, cancellation, injected, self._engine.stream)
            async with aclosing(self._loop.events(run)) as events:
                async for event in events:
                    yield event
        except StreamBroken as exc:
            yield exc.event
        except LLMClientError as exc:
            retry_after = exc.retry_after if isinstance(exc, CallFailed | CallRefused) else None
            yield StreamFailed(code=exc.code, message=str(exc), retry_after=retry_after)

    def _begin(
        self,
        prompt: Prompt,
        context: RequestContext | None,
        cancellation: CancellationToken | None,
        injected: Mapping[str, Any] | None,
        ask: Ask,
    ) -> Run:
        given = {**self._injected, **(injected or {})}
        for tool in self._tools.values():
            if missing := sorted(tool.needs - given.keys()):
                raise ToolError(
                    f"The tool {tool.name} needs the value '{missing[0]}': give it as injected={{...}}.", tool=tool.name
                )
        return Run(
            conversation=Conversation(opening(prompt, self._system)),
            ask=ask,
            context=context or RequestContext(),
            cancellation=cancellation,
            injected=given,
        )

    def _runner(self) -> ToolRunner:
        chain = chained(self._middleware)
        return ToolRunner(self._tools, chain, max_parallel=self._max_parallel_tools, clock=self._clock)

    async def _complete(
        self, spec: RequestSpec, *, context: RequestContext, cancellation: CancellationToken | None
    ) -> AsyncGenerator[StreamEvent]:
        yield StreamEnded(result=await self._engine.complete(spec, context=context, cancellation=cancellation))


def _by_name(tools: Iterable[Tool | Callable[..., Any]]) -> dict[str, Tool]:
    named: dict[str, Tool] = {}
    for each in tools:
        tool = each if isinstance(each, Tool) else Tool(each)
        if tool.name in named:
            raise ToolError(f"Two tools of the agent are named {tool.name}.", tool=tool.name)
        named[tool.name] = tool
    return named
