"""`MelleaRuntime`: one session per run, with models behind the engine or behind mellea's own backends."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Literal, Self, TypeVar

from mellea import MelleaSession
from mellea.core import Backend
from mellea.stdlib.context import ChatContext, SimpleContext

from llm_client.spec import RequestContext
from llmhub_runtime.names import SERVED_FLOW
from mellea_runtime.backend import RoleBackend
from mellea_runtime.conversation import (
    Checkpoint,
    Conversation,
    Format,
    Required,
    instruction_of,
    message_of,
)
from mellea_runtime.engine import ChatEngine
from mellea_runtime.errors import MelleaRuntimeError, RuntimeSettingsInvalid
from mellea_runtime.home import Home
from mellea_runtime.node_logger import NodeLogger
from mellea_runtime.own_backends import own_backend
from mellea_runtime.requirements import DEFAULT_REPAIRS
from mellea_runtime.settings import ROLE_BACKEND, RuntimeSettings, read_settings
from mellea_runtime.slots import find_slot
from runtime_core.ids import IdSource, RandomIds

T = TypeVar("T")


class MelleaRuntime:
    """A run's session (source: mellea-runtime-adapter, API contract).

    `backend="role"` sends every call to `role`, or to the role `model_id`, of an ExecutionEngine: it is the default
    where there is an `engine`, which must be given on its own event loop and stays its owner's to close. `judge` is
    the role that judges requirements. The other backends are mellea's own. `context="simple"` switches the
    conversation's memory off. `program_modules` are the modules whose slots may be executed; None is any, but none
    within a served flow. `programs` and `models` give names to `module:slot`, and to roles or `backend/model`, for
    the shims.

    The sync methods work in any thread but that of the engine's loop, their twins (`achat`, ...) on any loop. Calls
    at the same time wait for each other, so that no turn is lost: `fork()` for branches that go on in parallel.
    """

    def __init__(
        self,
        backend: str | None = None,
        model_id: str | None = None,
        model_options: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        *,
        role: str | None = None,
        engine: ChatEngine | None = None,
        judge: str | None = None,
        context: Literal["chat", "simple"] = "chat",
        program_modules: Collection[str] | None = None,
        programs: Mapping[str, str] | None = None,
        models: Mapping[str, str] | None = None,
        ids: IdSource | None = None,
    ) -> None:
        settings = read_settings(
            os.environ,
            backend=backend,
            model_id=role or model_id,
            model_options=model_options,
            run_id=run_id,
            has_engine=engine is not None,
        )
        self._ids = ids or RandomIds()
        self.run_id = settings.run_id or self._ids.new("run")
        self.logger = NodeLogger(self.run_id)
        self.settings = settings
        self.programs = dict(programs or {})
        self.models = dict(models or {})
        self._engine = engine
        self._judge = judge
        self._program_modules = program_modules
        self._home = Home(None if engine is None else _running_loop())
        self._closed = False
        self._own: dict[str, Backend] = {}
        start = ChatContext() if context == "chat" else SimpleContext()
        self._conversation = Conversation(MelleaSession(self._backend(settings), start))

    @property
    def session(self) -> MelleaSession[Any]:
        """mellea's session, for what this class does not offer."""
        return self._conversation.session

    def chat(
        self,
        message: str,
        *,
        images: Sequence[Any] | None = None,
        format: Format | None = None,
        stream: bool = False,
        **options: Any,
    ) -> Any:
        """The answer to a message: its text, an instance of `format`, or with `stream` an iterator of its pieces.

        `images` are URLs or mellea's blocks. `options` keep the names that every chat API has: `max_tokens`,
        `temperature`, `seed`, `stop`, `system`. Raises AnswerInvalid for an answer that does not fit `format`, and
        what the engine raises.
        """
        action = message_of(message, images)
        if stream:
            return self._home.iterate(self._open().stream(action, options))
        return self._run(self._open().chat(action, format, options))

    async def achat(
        self, message: str, *, images: Sequence[Any] | None = None, format: Format | None = None, **options: Any
    ) -> Any:
        """`chat` for async code; its pieces come from `astream_chat`."""
        return await self._home.arun(self._open().chat(message_of(message, images), format, options))

    def astream_chat(self, message: str, *, images: Sequence[Any] | None = None, **options: Any) -> Any:
        """The pieces of the answer to a message, as an async iterator."""
        return self._home.aiterate(self._open().stream(message_of(message, images), options))

    def instruct(
        self,
        description: str,
        *,
        requirements: Sequence[Required] | None = None,
        examples: Sequence[str] | None = None,
        context: Mapping[str, Any] | None = None,
        format: Format | None = None,
        repair_attempts: int = DEFAULT_REPAIRS,
        stream: bool = False,
        **options: Any,
    ) -> Any:
        """What the description asks for. An answer that misses a requirement is asked for again with the reasons.

        `requirements` are texts that a model judges, Checks, or mellea's Requirements; with `stream` there can be
        none. Raises RequirementsUnmet, and what `chat` raises.
        """
        action = instruction_of(description, requirements, examples, context)
        if stream:
            return self._home.iterate(self._open().stream(action, options))
        return self._run(self._open().instruct(action, format, repair_attempts, options))

    async def ainstruct(
        self,
        description: str,
        *,
        requirements: Sequence[Required] | None = None,
        examples: Sequence[str] | None = None,
        context: Mapping[str, Any] | None = None,
        format: Format | None = None,
        repair_attempts: int = DEFAULT_REPAIRS,
        **options: Any,
    ) -> Any:
        """`instruct` for async code."""
        action = instruction_of(description, requirements, examples, context)
        return await self._home.arun(self._open().instruct(action, format, repair_attempts, options))

    def execute_slot(self, module_name: str, slot_name: str, **kwargs: Any) -> Any:
        """A slot of a program's module, in this run's session. Raises SlotRefused, SlotNotFound, SlotFailed."""
        return self.invoke_slot(self._find(module_name, slot_name), **kwargs)

    async def aexecute_slot(self, module_name: str, slot_name: str, **kwargs: Any) -> Any:
        """`execute_slot` for async code."""
        return await self.ainvoke_slot(self._find(module_name, slot_name), **kwargs)

    def invoke_slot(self, slot_fn: Callable[..., Any], **kwargs: Any) -> Any:
        """A slot in this run's session; a plain function is called as it is. Raises SlotFailed."""
        return self._run(self._open().invoke(slot_fn, kwargs, label=_label(slot_fn)))

    async def ainvoke_slot(self, slot_fn: Callable[..., Any], **kwargs: Any) -> Any:
        """`invoke_slot` for async code."""
        return await self._home.arun(self._open().invoke(slot_fn, kwargs, label=_label(slot_fn)))

    def switch_model(
        self,
        model_id: str | None = None,
        *,
        backend: str | None = None,
        role: str | None = None,
        model_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Another model from now on, in the same conversation. Raises RuntimeSettingsInvalid."""
        settings = read_settings(
            {},
            backend=backend or self.settings.backend,
            model_id=role or model_id,
            model_options=self.settings.model_options if model_options is None else model_options,
            run_id=self.run_id,
        )
        self._open().session.backend = self._backend(settings)
        self.settings = settings

    def checkpoint(self) -> Checkpoint:
        """The conversation so far. Raises ContextNotPortable while an answer of it is still to come."""
        return self._open().checkpoint(run_id=self.run_id, new_id=lambda: self._ids.new("rec"))

    def restore(self, checkpoint: Checkpoint) -> None:
        """The conversation as it was then, whichever run it was; what was said since is forgotten."""
        self._open().restore(checkpoint)

    def fork(self) -> MelleaRuntime:
        """A branch of the conversation, for work in parallel. It needs no cleanup of its own."""
        branch = object.__new__(type(self))
        branch.__dict__.update(self.__dict__, _conversation=self._open().fork())
        return branch

    def merge(self, *branches: MelleaRuntime) -> None:
        """Adds the turns of forks, one after the other in the order given: the topological one in a graph."""
        self._open().merge([branch._conversation for branch in branches])

    def cleanup(self) -> None:
        """Ends the session. May be called again."""
        if self._closed:
            return
        self._closed = True
        self.session.cleanup()
        for backend in self._own.values():
            self._home.run(backend.aclose())
        self._home.close()

    async def acleanup(self) -> None:
        """`cleanup` for async code."""
        await asyncio.to_thread(self.cleanup)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.cleanup()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.acleanup()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._home.run(work)

    def _open(self) -> Conversation:
        if self._closed:
            raise MelleaRuntimeError(f"the session of {self.run_id} has ended; make a new MelleaRuntime")
        return self._conversation

    def _find(self, module: str, name: str) -> Callable[..., Any]:
        allowed = self._program_modules
        if allowed is None and os.environ.get(SERVED_FLOW):
            allowed = ()
        return find_slot(module, name, allowed=allowed)

    def _backend(self, settings: RuntimeSettings) -> Backend:
        if settings.backend != ROLE_BACKEND:
            # kept, because each has connections of its own, and a run may go back and forth between models
            key = json.dumps([settings.backend, settings.model_id, settings.model_options], sort_keys=True, default=str)
            if key not in self._own:
                self._own[key] = own_backend(settings.backend, settings.model_id, settings.model_options)
            return self._own[key]
        if self._engine is None:
            message = "backend='role' needs an ExecutionEngine: MelleaRuntime(engine=...)"
            raise RuntimeSettingsInvalid(message, setting="engine")
        asked = RequestContext(run_id=self.run_id)
        return RoleBackend(
            self._engine,
            settings.model_id,
            judge=self._judge,
            asker=asked.child,
            model_options=dict(settings.model_options),
            home=self._home.loop,
        )


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _label(slot: Callable[..., Any]) -> str:
    return f"{getattr(slot, '__module__', '?')}:{getattr(slot, '__name__', slot)}"
