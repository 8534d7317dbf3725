"""One prompt with what precedes it and what its answer must fulfil, asked through a mellea session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mellea.stdlib.components import Instruction, Message

from llm_client.results import CompletionResult
from mellea_runtime.backend import RoleBackend
from mellea_runtime.engine import ChatEngine
from mellea_runtime.images import image_blocks
from mellea_runtime.internals import CachedFormatter, SharedThunk
from mellea_runtime.records import thaw
from mellea_runtime.requirements import DEFAULT_REPAIRS, Check, instructed
from mellea_runtime.scope import call_scope
from runtime_core.sessions.records import SessionRecord


@dataclass(frozen=True, slots=True)
class Asked:
    """`images` are URLs, data: URLs among them. `params` are those of a request, such as temperature."""

    text: str
    system: str | None = None
    images: tuple[str, ...] = ()
    history: tuple[SessionRecord, ...] = ()
    checks: tuple[Check, ...] = ()
    repairs: int = DEFAULT_REPAIRS
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Prompter:
    """Asks prompts; its templates are loaded once. A prompt without checks is sent word for word."""

    def __init__(self) -> None:
        self._formatter = CachedFormatter("")

    async def ask(
        self, prompt: Asked, engine: ChatEngine, *, role: str | None = None, judge: str | None = None
    ) -> CompletionResult:
        """The first answer that passes. Raises RequirementsUnmet, and what the engine raises."""
        backend = RoleBackend(engine, role, judge=judge, formatter=self._formatter)
        options = {**prompt.params, **({"system": prompt.system} if prompt.system else {})}
        images = image_blocks(prompt.images)
        context = thaw(prompt.history)
        async with call_scope():
            if prompt.checks:
                action = Instruction(
                    prompt.text, requirements=[check.requirement() for check in prompt.checks], images=images
                )
                answer, _ = await instructed(action, context, backend, repairs=prompt.repairs, options=options)
            else:
                message = Message("user", prompt.text, images=images)
                answer, _ = await backend.generate_from_context(message, context, model_options=options)
                await answer.avalue()
        assert isinstance(answer, SharedThunk) and answer.result is not None
        return answer.result
