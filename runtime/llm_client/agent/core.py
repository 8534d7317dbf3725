"""`Agent`: a model that may ask for tools, asked again with their results until it answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel, JsonValue

from llm_client.agent.conversation import Conversation, opening
from llm_client.agent.events import AgentEnded, AgentEvent, ToolFinished, ToolStarted
from llm_client.agent.execution import ToolRunner, Turn
from llm_client.agent.middleware import Middleware, chained, default_middleware
from llm_client.agent.results import AgentResult
from llm_client.agent.structured import Misfit, OutputSchema
from llm_client.cancellation import CancellationToken
from llm_client.errors import CallFailed, CallMalformed, CallRefused, LLMClientError, ToolError, TooManyTurns
from llm_client.events import StreamEnded, StreamEvent, StreamFailed
from llm_client.results import CompletionResult
from llm_client.spec import RequestContext, RequestSpec
from llm_client.tools import Tool
from runtime_core.clock import Clock, SystemClock

Prompt = str | Sequence[Mapping[str, JsonValue]]


class ModelEngine(Protocol):
    """What an agent needs of an ExecutionEngine."""

    async def complete(
        self,
        spec: RequestSpec,
        *,
        context: RequestContext | None = None,
        cancellation: CancellationToken | None = None,
    ) -> CompletionResult: ...

    def stream(
        self,
        spec: RequestSpec,
        *,
        context: RequestContext | None = None,
        cancellation: CancellationToken | None = None,
    ) -> AsyncGenerator[StreamEvent]: ...


Ask = Callable[..., AsyncGenerator[StreamEvent]]
"""`ModelEngine.stream`, or something that is called like it."""


@dataclass(frozen=True, slots=True)
class _Run:
    conversation: Conversation
    ask: Ask
    context: RequestContext
    cancellation: CancellationToken | None
    injected: Mapping[str, Any]


class _StreamBroken(Exception):
    def __init__(self, event: StreamFailed) -> None:
        super().__init__(event)
        self.event = event


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
        self._runner = ToolRunner(self._tools, chained(middleware), max_parallel=max_parallel_tools, clock=clock)
        self._max_turns = max_turns
        self._system = system
        self._role = role
        self._output = None if output_schema is None else OutputSchema(output_schema)
        self._params = dict(params or {})
        self._injected = dict(injected or {})

    @property
    def tools(self) -> tuple[Tool, ...]:
        return tuple(self._tools.values())

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
        async with aclosing(self._events(run)) as events:
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
        """`run` as it happens; what `run` raises is the last event, StreamFailed."""
        try:
            run = self._begin(prompt, context, cancellation, injected, self._engine.stream)
            async with aclosing(self._events(run)) as events:
                async for event in events:
                    yield event
        except _StreamBroken as exc:
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
    ) -> _Run:
        given = {**self._injected, **(injected or {})}
        for tool in self._tools.values():
            if missing := sorted(tool.needs - given.keys()):
                raise ToolError(
                    f"The tool {tool.name} needs the value '{missing[0]}': give it as injected={{...}}.", tool=tool.name
                )
        return _Run(
            conversation=Conversation(opening(prompt, self._system)),
            ask=ask,
            context=context or RequestContext(),
            cancellation=cancellation,
            injected=given,
        )

    async def _events(self, run: _Run) -> AsyncGenerator[AgentEvent]:
        conversation = run.conversation
        while True:
            async with aclosing(self._turn(run)) as events:
                async for event in events:
                    yield event
            if not conversation.calls:
                break
            if conversation.turns >= self._max_turns:
                raise _too_many_turns(conversation)
            for call in conversation.calls:
                yield ToolStarted(call_id=call.id, name=call.name, turn=conversation.turns)
            for ended in await self._use_tools(run):
                yield ended
        output = None
        if self._output is not None:
            try:
                output = self._output.read(conversation.content)
            except Misfit as exc:
                conversation.ask_again(str(exc))
                async with aclosing(self._turn(run, mend=True)) as events:
                    async for event in events:
                        yield event
                output = _mended(self._output, conversation)
        yield AgentEnded(result=conversation.result(output))

    async def _turn(self, run: _Run, *, mend: bool = False) -> AsyncGenerator[AgentEvent]:
        """One model call. Raises _StreamBroken where a stream tells of its failure."""
        spec = self._spec(run.conversation.messages, mend=mend)
        async with aclosing(run.ask(spec, context=run.context.child(), cancellation=run.cancellation)) as events:
            async for event in events:
                match event:
                    case StreamEnded():
                        run.conversation.heard(event.result)
                    case StreamFailed():
                        raise _StreamBroken(event)
                    case _:
                        yield event

    def _spec(self, messages: Sequence[dict[str, JsonValue]], *, mend: bool) -> RequestSpec:
        """A mending turn offers the tools, since the messages speak of them, and forbids their use."""
        params = dict(self._params)
        if self._output is not None:
            params["response_format"] = self._output.response_format()
        return RequestSpec(
            messages=tuple(messages),
            role=self._role,
            params=params,
            tools=tuple(tool.spec() for tool in self._tools.values()),
            tool_choice="none" if mend and self._tools else None,
        )

    async def _complete(
        self, spec: RequestSpec, *, context: RequestContext, cancellation: CancellationToken | None
    ) -> AsyncGenerator[StreamEvent]:
        yield StreamEnded(result=await self._engine.complete(spec, context=context, cancellation=cancellation))

    async def _use_tools(self, run: _Run) -> list[ToolFinished]:
        conversation = run.conversation
        turn = Turn(conversation.turns, len(conversation.records), run.context, run.injected)
        async with run.cancellation.scope() if run.cancellation else nullcontext():
            records, texts = await self._runner.run(conversation.calls, turn)
        conversation.told(records, texts)
        return [
            ToolFinished(
                call_id=each.id,
                name=each.name,
                turn=each.turn,
                outcome=each.outcome,
                error=each.error,
                duration_s=each.duration_s,
            )
            for each in records
        ]


def _by_name(tools: Iterable[Tool | Callable[..., Any]]) -> dict[str, Tool]:
    named: dict[str, Tool] = {}
    for each in tools:
        tool = each if isinstance(each, Tool) else Tool(each)
        if tool.name in named:
            raise ToolError(f"Two tools of the agent are named {tool.name}.", tool=tool.name)
        named[tool.name] = tool
    return named


def _too_many_turns(conversation: Conversation) -> TooManyTurns:
    made = Counter(each.name for each in conversation.records).most_common(3)
    most = ", ".join(f"{name!a} {count} times" for name, count in made) or "none"
    return TooManyTurns(
        f"The model still asked for tools in turn {conversation.turns}, the last one; calls so far: {most}. "
        "Raise max_turns, or tell the model in the system message when to stop."
    )


def _mended(schema: OutputSchema, conversation: Conversation) -> Any:
    try:
        if conversation.calls:
            raise Misfit("this is a tool call")
        return schema.read(conversation.content)
    except Misfit as exc:
        raise CallMalformed(f"The model's answer does not fit the output schema, twice: {exc}.") from exc
