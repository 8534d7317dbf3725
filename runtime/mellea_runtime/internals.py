"""The one file that uses what mellea keeps private. Written for mellea 0.8, and checked against it by a test.

A thunk of mellea's own hangs when two tasks await it, when it is awaited again after an error, and when the task that
fills it is cancelled. Its formatter parses a template's source anew for every message. Both are mended here.
"""

from __future__ import annotations

import abc
import asyncio
import datetime
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import fields
from functools import cache
from importlib.metadata import version
from typing import Any

import jinja2
from mellea.backends import FormatterBackend, ModelOption
from mellea.core import (
    Backend,
    Component,
    ComputedModelOutputThunk,
    Context,
    GenerateLog,
    ModelOutputThunk,
    TemplateRepresentation,
)
from mellea.core.base import GenerateType
from mellea.formatters import TemplateFormatter
from mellea.helpers.openai_compatible_helpers import build_tool_calls
from mellea.stdlib.components import Message

from llm_client.errors import CallCancelled
from llm_client.events import ReasoningDelta, TextDelta, ToolCallDelta
from llm_client.results import CompletionResult
from mellea_runtime.errors import MelleaIncompatible
from mellea_runtime.scope import belongs

SERIES = "0.8"
"""The mellea whose private names these are."""
MOST_TEMPLATES = 256

Event = TextDelta | ReasoningDelta | ToolCallDelta | CompletionResult
Finish = Callable[["SharedThunk", CompletionResult], dict[str, Any]]
"""Fills in what an answer means beyond its text; gives the response in OpenAI's form."""


@cache
def check_version() -> None:
    """Raises MelleaIncompatible for a mellea of another series."""
    installed = version("mellea")
    if not installed.startswith(f"{SERIES}."):
        message = (
            f"mellea {installed} is installed and this version works with {SERIES}: pip install 'mellea=={SERIES}.*'"
        )
        raise MelleaIncompatible(message, installed=installed)


class SharedThunk(ModelOutputThunk[Any]):
    """A model's answer to come, which any number of tasks of one event loop may await, with deadlines of their own.

    One that failed raises the same error for each of them, at any time. One that was cancelled has the text that had
    come by then.
    """

    def __init__(self) -> None:
        super().__init__(None)
        # mellea's bounded queue blocks a task that nobody reads from; an answer is no larger than its text.
        self._gen.queue = asyncio.Queue()
        self._gen.chunk_size = 0  # else the first delta waits for three more
        self._reading = asyncio.Lock()
        self._failure: Exception | None = None
        self._ending = False
        self._result: CompletionResult | None = None

    @property
    def result(self) -> CompletionResult | None:
        """The engine's own answer, once it is there."""
        return self._result

    def begin(
        self,
        events: AsyncGenerator[Event],
        *,
        action: Any,
        view: Sequence[Any],
        options: dict[str, Any],
        prompt: list[dict[str, Any]],
        finish: Finish,
        keep_prompt: bool,
    ) -> None:
        """Starts the request. Without `keep_prompt` what was asked is forgotten when the answer is there."""
        self._call.action, self._call.context, self._call.model_options = action, list(view), options

        async def ended(thunk: ModelOutputThunk[Any]) -> None:
            assert self._result is not None
            response = finish(self, self._result)
            self._generate_log = GenerateLog(
                date=self._gen.start,
                prompt=prompt if keep_prompt else None,
                backend=f"role::{self._result.role}",
                model_options=options,
                model_output=response,
                action=action,
            )
            if not keep_prompt:
                # A thunk that keeps the conversation before it makes memory grow with the square of the turns.
                self._call.context = None
            self._gen.process = self._gen.post_process = self._gen.generate = None

        self._gen.start = datetime.datetime.now()
        self._gen.process = _fold
        self._gen.post_process = ended
        self._gen.generate_type = GenerateType.ASYNC
        self._gen.generate = asyncio.create_task(self._feed(events, streams=bool(options.get(ModelOption.STREAM))))
        belongs(self._gen.generate)

    async def _feed(self, events: AsyncGenerator[Event], *, streams: bool) -> None:
        queue = self._gen.queue
        try:
            async with aclosing(events):
                async for event in events:
                    if streams:
                        self._record_ttfb()
                    queue.put_nowait(event)
        except asyncio.CancelledError:
            queue.put_nowait(CallCancelled("The model call was cancelled before its answer was there."))
            raise
        except Exception as exc:  # noqa: BLE001 - raised by whoever awaits the thunk
            queue.put_nowait(exc)
        else:
            queue.put_nowait(None)

    async def avalue(self) -> str:
        while not self._computed:
            await self._read()
        if self._failure is not None:
            raise self._failure
        return self._underlying_value or ""

    async def astream(self) -> str:
        """The text since the last call. One reader at a time; the others wait for their turn."""
        return await super().astream() if self._computed else await self._read()

    async def _read(self) -> str:
        """The next piece, or nothing when somebody else has taken the last one by now."""
        async with self._reading:
            if self._failure is not None:
                raise self._failure
            if self._computed:  # and perhaps of another class, which mellea gives to what is computed
                return ""
            try:
                return await super().astream()
            except Exception as exc:
                if self._ending:
                    return ""
                self._failure = exc
                raise

    async def cancel_generation(self, error: Exception | None = None) -> None:
        self._ending = True
        await super().cancel_generation(error)
        # mellea empties the queue, and with it what would have woken the tasks that wait for it.
        self._gen.queue.put_nowait(CallCancelled("The model call was cancelled."))


async def _fold(thunk: ModelOutputThunk[Any], event: Event) -> None:
    match event:
        case TextDelta():
            thunk._underlying_value = (thunk._underlying_value or "") + event.text
        case ReasoningDelta():
            thunk.thinking = (thunk.thinking or "") + event.text
        case CompletionResult():
            assert isinstance(thunk, SharedThunk)
            thunk._result = event
            thunk._underlying_value = event.content
            thunk.thinking = event.reasoning
        case ToolCallDelta():
            pass


def computed(text: str, *, parsed: Message, usage: dict[str, int] | None) -> ComputedModelOutputThunk[Any]:
    """An answer that is there already, such as one of an earlier run."""
    thunk: ModelOutputThunk[Any] = ModelOutputThunk(text, parsed_repr=parsed)
    thunk.generation.usage = usage
    thunk._generate_log = GenerateLog()
    return ComputedModelOutputThunk(thunk)


class PortedBackend(FormatterBackend, abc.ABC):
    """A backend by two public methods in place of mellea's private ones. Raises MelleaIncompatible."""

    def __init__(
        self, *, model: str, provider: str, formatter: TemplateFormatter, model_options: dict[str, Any] | None
    ) -> None:
        check_version()
        super().__init__(model_id=model, formatter=formatter, model_options=dict(model_options or {}))
        self._model_id = model
        self._provider = provider

    @abc.abstractmethod
    async def generate(
        self,
        action: Any,
        context: Context,
        *,
        format: type[Any] | None,
        options: dict[str, Any] | None,
        tool_calls: bool,
    ) -> SharedThunk: ...

    @abc.abstractmethod
    async def generate_each(
        self, actions: Sequence[Any], *, format: type[Any] | None, options: dict[str, Any] | None
    ) -> tuple[list[Any], dict[str, Any]]: ...

    async def _generate_from_context(
        self,
        action: Any,
        ctx: Context,
        *,
        format: Any = None,
        model_options: dict[str, Any] | None = None,
        tool_calls: bool = False,
    ) -> tuple[Any, Context]:
        thunk = await self.generate(action, ctx, format=format, options=model_options, tool_calls=tool_calls)
        return thunk, ctx.add(action).add(thunk)

    async def _generate_from_raw(
        self,
        actions: Sequence[Any],
        ctx: Context,
        *,
        format: Any = None,
        model_options: dict[str, Any] | None = None,
        tool_calls: bool = False,
    ) -> tuple[list[Any], dict[str, Any] | None]:
        return await self.generate_each(actions, format=format, options=model_options)


class CachedFormatter(TemplateFormatter):
    """mellea's templates, each loaded and parsed once. By class, where mellea goes by the name of the class.

    `template_path` is a folder of templates that come before those of the components' own packages.
    """

    def __init__(self, model_id: str, *, template_path: str = "") -> None:
        super().__init__(model_id, template_path=template_path, use_template_cache=False)
        self._loaded: dict[Any, jinja2.Template] = {}

    def _load_template(self, repr: TemplateRepresentation) -> jinja2.Template:
        key = (repr.template, type(repr.obj), tuple(repr.template_order or ("*",)))
        template = self._loaded.get(key)
        if template is None:
            if len(self._loaded) >= MOST_TEMPLATES:  # a component may make a template of its own for each call
                self._loaded.clear()
            template = self._loaded[key] = super()._load_template(repr)
        return template

    def _get_expected_variables(self, template: jinja2.Template, representation: TemplateRepresentation) -> set[str]:
        return set()  # only a warning about unused names hangs on it, and it costs more than the rendering

    def print(self, c: Any) -> str:
        if isinstance(c, Message) and not c._docs and not self._template_path:
            return c.content  # what mellea's template gives
        return super().print(c)

    def to_chat_messages(self, cs: list[Any]) -> list[Message]:
        messages: list[Message] = []
        for each in cs:
            if isinstance(each, ModelOutputThunk) and each.tool_calls and not isinstance(each.parsed_repr, Component):
                # mellea drops the calls of an answer to anything but a message, and their results stand alone
                calls: Any = build_tool_calls(each)
                messages.append(Message("assistant", each.value or "", tool_calls=calls, thinking=each.thinking))
            else:
                messages += super().to_chat_messages([each])
        return messages


def drifted() -> list[str]:
    """What of mellea is not as this file takes it to be, one sentence each."""
    thunk = ModelOutputThunk(None)
    wanted: dict[str, tuple[set[str], set[str]]] = {
        "a thunk": (
            {"_gen", "_call", "_underlying_value", "_computed", "_cancelled", "_generate_log"},
            set(vars(thunk)),
        ),
        "a thunk's class": ({"_record_ttfb", "_set_parsed_repr", "astream", "cancel_generation"}, set(dir(thunk))),
        "a thunk's _gen": (
            {"queue", "chunk_size", "start", "process", "post_process", "generate", "generate_type"},
            {field.name for field in fields(thunk._gen)},
        ),
        "a thunk's _call": ({"action", "context", "model_options"}, {field.name for field in fields(thunk._call)}),
        "Backend": (
            {"_generate_from_context", "_generate_from_raw"},
            set(getattr(Backend, "__abstractmethods__", ())),
        ),
        "Backend's annotations": ({"_model_id", "_provider"}, set(Backend.__annotations__)),
        "TemplateFormatter": ({"_load_template", "_get_expected_variables"}, set(vars(TemplateFormatter))),
        "a Message": ({"_docs"}, set(vars(Message("user", "")))),
    }
    return [
        f"{what} has no {name} any more" for what, (names, found) in wanted.items() for name in sorted(names - found)
    ]
