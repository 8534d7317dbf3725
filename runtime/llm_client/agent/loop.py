"""The loop between a model and its tools: ask, run what it asks for, ask again, until it answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import JsonValue

from llm_client.agent.conversation import Conversation
from llm_client.agent.events import AgentEnded, AgentEvent, ToolFinished, ToolStarted
from llm_client.agent.execution import ToolRunner, Turn
from llm_client.agent.structured import Misfit, OutputSchema
from llm_client.cancellation import CancellationToken
from llm_client.errors import CallMalformed, TooManyTurns
from llm_client.events import StreamEnded, StreamEvent, StreamFailed
from llm_client.results import CompletionResult
from llm_client.spec import RequestContext, RequestSpec


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
class Run:
    conversation: Conversation
    ask: Ask
    context: RequestContext
    cancellation: CancellationToken | None
    injected: Mapping[str, Any]


class StreamBroken(Exception):
    """A stream ended with this event."""

    def __init__(self, event: StreamFailed) -> None:
        super().__init__(event)
        self.event = event


@dataclass(frozen=True, slots=True)
class Loop:
    """What every turn of every run is made with."""

    runner: ToolRunner
    max_turns: int
    role: str | None = None
    params: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    tools: tuple[dict[str, JsonValue], ...] = ()
    output: OutputSchema | None = None

    async def events(self, run: Run) -> AsyncGenerator[AgentEvent]:
        """Ends with AgentEnded. Raises StreamBroken, TooManyTurns, CallMalformed, and what the engine raises."""
        conversation = run.conversation
        while True:
            async with aclosing(self._turn(run)) as events:
                async for event in events:
                    yield event
            if not conversation.calls:
                break
            if conversation.turns >= self.max_turns:
                raise _too_many_turns(conversation)
            for call in conversation.calls:
                yield ToolStarted(call_id=call.id, name=call.name, turn=conversation.turns)
            for ended in await self._use_tools(run):
                yield ended
        output = None
        if self.output is not None:
            try:
                output = self.output.read(conversation.content)
            except Misfit as exc:
                conversation.ask_again(str(exc))
                async with aclosing(self._turn(run, mend=True)) as events:
                    async for event in events:
                        yield event
                output = _mended(self.output, conversation)
        yield AgentEnded(result=conversation.result(output))

    async def _turn(self, run: Run, *, mend: bool = False) -> AsyncGenerator[AgentEvent]:
        """One model call. Raises StreamBroken where a stream tells of its failure."""
        before, spec = run.conversation.turns, self._spec(run.conversation.messages, mend=mend)
        async with aclosing(run.ask(spec, context=run.context.child(), cancellation=run.cancellation)) as events:
            async for event in events:
                match event:
                    case StreamEnded():
                        run.conversation.heard(event.result)
                    case StreamFailed():
                        raise StreamBroken(event)
                    case _:
                        yield event
        if run.conversation.turns == before:
            raise CallMalformed("The engine's stream ended without an answer.")

    def _spec(self, messages: Sequence[dict[str, JsonValue]], *, mend: bool) -> RequestSpec:
        """A mending turn offers the tools, since the messages speak of them, and forbids their use."""
        params = dict(self.params)
        if self.output is not None:
            params["response_format"] = self.output.response_format()
        return RequestSpec(
            messages=tuple(messages),
            role=self.role,
            params=params,
            tools=self.tools,
            tool_choice="none" if mend and self.tools else None,
        )

    async def _use_tools(self, run: Run) -> list[ToolFinished]:
        conversation = run.conversation
        turn = Turn(conversation.turns, len(conversation.records), run.context, run.injected)
        async with run.cancellation.scope() if run.cancellation else nullcontext():
            records, texts = await self.runner.run(conversation.calls, turn)
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
