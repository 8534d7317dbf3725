"""The conversation of one run: a mellea session whose turns wait for each other, so that none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from mellea import MelleaSession
from mellea.backends import ModelOption
from mellea.core import Context, Requirement
from mellea.stdlib.components import Instruction, Message
from mellea.stdlib.components.genstub import GenerativeStub
from mellea.stdlib.context import ChatContext
from pydantic import BaseModel, ConfigDict

from llm_client.agent.structured import Misfit, OutputSchema
from mellea_runtime.errors import AnswerInvalid, RuntimeSettingsInvalid
from mellea_runtime.images import image_blocks
from mellea_runtime.options import named_options
from mellea_runtime.records import delta, freeze, thaw
from mellea_runtime.requirements import Check, instructed
from mellea_runtime.scope import call_scope
from mellea_runtime.slots import DEFAULT_ATTEMPTS, call_slot
from runtime_core.sessions.records import SessionRecord

Format = type[BaseModel]
Required = str | Check | Requirement
Action = Message | Instruction


class Checkpoint(BaseModel):
    """A run's conversation at one moment; JSON, so that it may be kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    records: tuple[SessionRecord, ...] = ()


class Conversation:
    """Lives on one event loop. `base` is the context that it was forked from."""

    def __init__(self, session: MelleaSession[Any], *, base: Context | None = None) -> None:
        self.session = session
        self._base = base
        self._turns = asyncio.Lock()

    async def chat(self, message: Message, format: Format | None, options: Mapping[str, Any]) -> Any:
        """The text of the answer, or an instance of `format`. Raises AnswerInvalid, and what the engine raises."""
        async with self._turns, call_scope():
            answer, context = await self.session.backend.generate_from_context(
                message, self.session.ctx, format=format, model_options=named_options(options)
            )
            text = await answer.avalue()
            value = _read(text, format)
            self.session.ctx = context
        return value

    async def instruct(
        self, action: Instruction, format: Format | None, repairs: int, options: Mapping[str, Any]
    ) -> Any:
        """`chat`, with the answer checked and repaired. Raises RequirementsUnmet as well."""
        async with self._turns, call_scope():
            answer, context = await instructed(
                action,
                self.session.ctx,
                self.session.backend,
                repairs=repairs,
                format=format,
                options=named_options(options),
            )
            value = _read(answer.value or "", format)
            self.session.ctx = context
        return value

    async def stream(self, action: Action, options: Mapping[str, Any]) -> AsyncGenerator[str]:
        """The pieces of the answer; the turn counts when all of them were taken."""
        if isinstance(action, Instruction) and action.requirements:
            raise RuntimeSettingsInvalid("an answer that must be checked cannot be streamed", setting="requirements")
        wanted = {**named_options(options), ModelOption.STREAM: True}
        answer, context = await self.session.backend.generate_from_context(
            action, self.session.ctx, model_options=wanted
        )
        async with answer:
            async for piece in answer:
                if piece:
                    yield piece
        self.session.ctx = context

    async def invoke(self, slot: Callable[..., Any], arguments: Mapping[str, Any], *, label: str) -> Any:
        """A slot in this conversation. A plain function is no turn: it may take turns itself. Raises SlotFailed."""
        if not isinstance(slot, GenerativeStub):
            return await call_slot(slot, self.session, arguments, label=label, attempts=1)
        async with self._turns:
            return await call_slot(slot, self.session, arguments, label=label, attempts=DEFAULT_ATTEMPTS)

    def fork(self) -> Conversation:
        """A conversation that goes on from here by itself."""
        return Conversation(self.session.clone(), base=self.session.ctx)

    def merge(self, branches: Sequence[Conversation]) -> None:
        """Adds the turns of forks, one fork after the other. Raises ContextNotPortable for what was never forked."""
        for branch in branches:
            assert branch._base is not None
            for span in delta(branch._base, branch.session.ctx):
                self.session.ctx = self.session.ctx.add(span)

    def checkpoint(self, *, run_id: str, new_id: Callable[[], str]) -> Checkpoint:
        return Checkpoint(run_id=run_id, records=freeze(self.session.ctx, run_id=run_id, new_id=new_id))

    def restore(self, checkpoint: Checkpoint) -> None:
        empty = self.session.ctx.new_instance()
        self.session.ctx = thaw(checkpoint.records, empty) if isinstance(empty, ChatContext) else empty


def message_of(text: str, images: Sequence[Any] | None) -> Message:
    return Message("user", text, images=image_blocks(images))


def instruction_of(
    description: str,
    requirements: Sequence[Required] | None,
    examples: Sequence[str] | None,
    context: Mapping[str, Any] | None,
) -> Instruction:
    """Fresh copies of everything: mellea writes into the lists that it is given."""
    required = [each.requirement() if isinstance(each, Check) else each for each in requirements or ()]
    return Instruction(
        description,
        requirements=list(required),
        icl_examples=list(examples or ()),
        grounding_context={name: str(value) for name, value in (context or {}).items()},
    )


def _read(text: str, format: Format | None) -> Any:
    if format is None:
        return text
    try:
        return OutputSchema(format).read(text)
    except Misfit as exc:
        raise AnswerInvalid(f"the answer is no {format.__name__}: {exc}", answer=text) from exc
