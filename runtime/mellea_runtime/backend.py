"""`RoleBackend`: mellea's backend over the one engine that every model call passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

from mellea.backends.tools import (
    add_tools_from_context_actions,
    add_tools_from_model_options,
    convert_tools_to_json,
)
from mellea.core import Context, ModelOutputThunk, Requirement
from mellea.helpers.openai_compatible_helpers import (
    message_to_openai_message,
    prefetch_audio_urls,
    should_replay_reasoning,
)
from mellea.stdlib.components import Message
from mellea.stdlib.context import SimpleContext
from pydantic import BaseModel

from llm_client.agent.structured import OutputSchema
from llm_client.errors import CallFailed, CallTimedOut
from llm_client.events import StreamEnded, StreamFailed
from llm_client.spec import EmbeddingSpec, RequestContext, RequestSpec
from mellea_runtime.answers import fill
from mellea_runtime.engine import ChatEngine, HomeLoop, error_of
from mellea_runtime.internals import CachedFormatter, Event, PortedBackend, SharedThunk
from mellea_runtime.options import CallOptions, call_options

Asker = Callable[[], RequestContext | None]


class RoleBackend(PortedBackend):
    """Every call of a session goes to `role` of the engine; a requirement is judged by `judge`, else by `role`.

    `engine` stays its owner's to close, and is called on its own event loop, `home`, whatever loop a call comes from.
    `asker` tells on whose behalf each call is made. `model` is what mellea picks its templates by; a `formatter` may
    be shared by backends. `keep_prompts` keeps with every answer what was asked for it (`MelleaSession.last_prompt`),
    and memory then grows with the square of the turns. `model_options` may name another role for a call:
    `{ROLE: "llm.large"}`.
    """

    def __init__(
        self,
        engine: ChatEngine,
        role: str | None = None,
        *,
        judge: str | None = None,
        asker: Asker | None = None,
        model: str | None = None,
        model_options: dict[str, Any] | None = None,
        keep_prompts: bool = False,
        home: asyncio.AbstractEventLoop | None = None,
        formatter: CachedFormatter | None = None,
    ) -> None:
        name = model or role or "default"
        super().__init__(
            model=name, provider="agentflow", formatter=formatter or CachedFormatter(name), model_options=model_options
        )
        self.role = role
        self.judge = judge
        self._engine = HomeLoop(engine, home)
        self._asker = asker or _nobody
        self._keep_prompts = keep_prompts
        # Made once per class: pydantic takes longer over a schema than the engine over a call.
        self._formats: WeakKeyDictionary[type[BaseModel], dict[str, Any]] = WeakKeyDictionary()

    async def embed(self, texts: Sequence[str], *, role: str | None = None) -> list[list[float]]:
        """One vector for each text, by a role for embeddings. Raises what the engine raises."""
        spec = EmbeddingSpec(inputs=tuple(texts), role=role or self.role)
        return [list(vector) for vector in (await self._engine.embed(spec, context=self._asker())).vectors]

    async def generate(
        self,
        action: Any,
        context: Context,
        *,
        format: type[BaseModel] | None,
        options: dict[str, Any] | None,
        tool_calls: bool,
    ) -> SharedThunk:
        """Starts the call; what the action and the conversation still wait for is awaited before."""
        if not isinstance(action, Message):  # which holds nothing that could still be to come
            await self.do_generate_walk(action)
        view = context.view_for_generation()
        if view is None:
            raise ValueError("a model cannot be asked from a context that branches; give it one of its branches")
        for item in view:
            if isinstance(item, ModelOutputThunk) and not item.is_computed():
                await item.avalue()
        judges = isinstance(action, Requirement)
        chosen = call_options(self.model_options, options, judges=judges)
        prompt = await self._messages(view, action, chosen)
        tools = _tools(action, context, chosen) if tool_calls and format is None else {}
        spec = RequestSpec.model_construct(
            messages=tuple(prompt),
            role=(self.judge if judges else None) or chosen.role or self.role,
            params=chosen.params if format is None else {**chosen.params, "response_format": self._format(format)},
            tools=tuple(convert_tools_to_json(tools)),
            tool_choice=chosen.tool_choice if tools else None,
        )
        thunk = SharedThunk()
        thunk.begin(
            self._events(spec, chosen),
            action=action,
            view=view,
            options=chosen.mellea,
            prompt=prompt,
            finish=lambda thunk, result: fill(thunk, result, tools),
            keep_prompt=self._keep_prompts,
        )
        return thunk

    async def generate_each(
        self, actions: Sequence[Any], *, format: type[BaseModel] | None, options: dict[str, Any] | None
    ) -> tuple[list[SharedThunk], dict[str, Any]]:
        """One call per action without any conversation: there is no completion API below to hand plain text to."""
        thunks = [
            await self.generate(action, SimpleContext(), format=format, options=options, tool_calls=False)
            for action in actions
        ]
        await asyncio.gather(*(thunk.avalue() for thunk in thunks))
        names = ("prompt_tokens", "completion_tokens", "total_tokens")
        return thunks, {name: sum((thunk.generation.usage or {}).get(name, 0) for thunk in thunks) for name in names}

    def _format(self, wanted: type[BaseModel]) -> dict[str, Any]:
        if wanted not in self._formats:
            self._formats[wanted] = OutputSchema(wanted).response_format()
        return self._formats[wanted]

    async def _messages(self, view: Sequence[Any], action: Any, chosen: CallOptions) -> list[dict[str, Any]]:
        formatter = self.formatter
        messages = formatter.to_chat_messages([*view, action])
        await prefetch_audio_urls(messages)
        replays = should_replay_reasoning(messages, self._provider)
        told = [
            message_to_openai_message(message, formatter, replay_reasoning=replay)
            for message, replay in zip(messages, replays, strict=True)
        ]
        return [{"role": "system", "content": chosen.system}, *told] if chosen.system else told

    async def _events(self, spec: RequestSpec, chosen: CallOptions) -> AsyncGenerator[Event]:
        if not chosen.streams:
            yield await self._engine.complete(spec, context=self._asker())
            return
        async with aclosing(self._engine.stream(spec, context=self._asker())) as events:
            while True:
                async with _patience(chosen.chunk_timeout_s):
                    event = await anext(events, None)
                match event:
                    case None:
                        raise CallFailed("The engine's stream ended without an answer.")
                    case StreamFailed():
                        raise error_of(event)
                    case StreamEnded():
                        yield event.result
                        return
                    case _:
                        yield event


@asynccontextmanager
async def _patience(seconds: float | None) -> AsyncIterator[None]:
    """Bounds the wait for one piece of a stream."""
    bound = asyncio.timeout(seconds)
    try:
        async with bound:
            yield
    except TimeoutError as exc:
        if not bound.expired():
            raise
        raise CallTimedOut(f"No piece of the stream came for {seconds:g} s.") from exc


def _nobody() -> RequestContext | None:
    return None


def _tools(action: Any, context: Context, chosen: CallOptions) -> dict[str, Any]:
    tools: dict[str, Any] = {}
    add_tools_from_model_options(tools, chosen.mellea)
    add_tools_from_context_actions(tools, context.actions_for_available_tools())
    add_tools_from_context_actions(tools, [action])
    return tools
