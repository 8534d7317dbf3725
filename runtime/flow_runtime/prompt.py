"""The prompt layer of a node: render, call the model, parse the answer (IR.md Q5, Q6, Q21, Q35).

A prompt that remembers, or whose answer must fulfil something, is asked through mellea; any other goes straight to
its model. The words of both are rendered here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from agentflow.ir import ModelRef, Prompt
from agentflow.scalars import finite
from agentflow.schemas import compile_schema
from agentflow.settings import NodeSettings
from agentflow.templates import compile_template
from flow_runtime.call import NodeCall
from flow_runtime.errors import OutputInvalid
from flow_runtime.images import Images
from flow_runtime.models import ModelAnswer, Models
from flow_runtime.parts import NodeParts

if TYPE_CHECKING:
    from flow_runtime.prompt_session import PromptSession
    from flow_runtime.prompt_tools import PromptTools
    from runtime_core.sessions.records import SessionRecord


@dataclass(frozen=True, slots=True)
class Answered:
    """A model's answer, and the messages of the tools that ran before it."""

    answer: ModelAnswer
    between: Sequence[Mapping[str, Any]] = ()


class PromptLayer:
    """One node's prompt, compiled once."""

    def __init__(
        self, node: str, prompt: Prompt, settings: NodeSettings, input_names: tuple[str, ...], parts: NodeParts
    ) -> None:
        self._node = node
        self._prompt = prompt
        self._settings = settings
        self._ids = parts.ids
        self._template = compile_template(prompt.template, (*input_names, "context"))
        self._images = Images(prompt.images, (*input_names, "context"))
        self._schema = compile_schema(prompt.output_schema) if prompt.output_schema is not None else None
        self._params = self._fixed_params(node)
        self._tools: PromptTools | None = None
        self._session: PromptSession | None = None
        if prompt.tools:
            from flow_runtime.prompt_tools import PromptTools

            self._tools = PromptTools(node, prompt, settings, parts)
        if needs_session(prompt):
            from flow_runtime.prompt_session import PromptSession  # and with it mellea, which most nodes spare

            self._session = PromptSession(prompt, input_names, parse=self.parse, tools=self._tools)

    async def ask(
        self, models: Models, model: str | ModelRef, values: Mapping[str, Any], call: NodeCall
    ) -> tuple[Any, tuple[SessionRecord, ...]]:
        """The model's answer, and its turn where somebody remembers it.

        The answer is the model's text, or the parsed and checked JSON where the prompt has an `output_schema`.
        Raises TemplateFailed, ImageInvalid, ModelFailed, NodeTimeout, or OutputInvalid when the answer does not fit.
        """
        text = self._template.render(values)
        images = self._images.urls(values)
        if self._session is not None:
            answered = await self._session.ask(models, model, text, images, self._params, values, call)
        else:
            answered = await self._ask(models, model, text, images)
        value = self.parse(answered.answer.text)
        if call.memory is None:
            return value, ()
        from flow_runtime.memory import turn_records

        return value, turn_records(
            run_id=call.context.run_id,
            node=self._node,
            ids=self._ids,
            asked=text,
            between=answered.between,
            answer=answered.answer.text,
            usage=answered.answer.usage,
        )

    async def _ask(self, models: Models, model: str | ModelRef, text: str, images: Sequence[str]) -> Answered:
        parts = [{"type": "image_url", "image_url": {"url": url}} for url in images]
        content = [{"type": "text", "text": text}, *parts] if parts else text
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if self._prompt.system:
            messages.insert(0, {"role": "system", "content": self._prompt.system})
        if self._tools is not None:
            return await self._tools.ask(models, model, messages, self._params)
        return Answered(await models.chat(model, messages, self._params))

    def static(self) -> Any:
        """What `fallback.static_response` stands for."""
        fallback = self._prompt.fallback
        assert fallback is not None and fallback.static_response is not None
        return self.parse(fallback.static_response)

    def parse(self, text: str) -> Any:
        """The text, or the value of its JSON where the prompt has an `output_schema`. Raises OutputInvalid."""
        if self._schema is None:
            return text
        try:
            value = json.loads(text, parse_constant=_no_constant, parse_float=finite)
        except (ValueError, RecursionError) as exc:
            raise OutputInvalid(f"the model's answer is not JSON: {exc}") from exc
        if problem := self._schema.check(value):
            raise OutputInvalid(f"the model's answer does not fit output_schema: {problem}")
        return value

    def _fixed_params(self, node: str) -> dict[str, Any]:
        params: dict[str, Any] = {}
        if self._settings.temperature is not None:
            params["temperature"] = self._settings.temperature
        if self._settings.max_tokens is not None:
            params["max_tokens"] = self._settings.max_tokens
        if self._prompt.output_schema is not None:
            schema = {"name": node, "schema": self._prompt.output_schema}
            params["response_format"] = {"type": "json_schema", "json_schema": schema}
        return params


def needs_session(prompt: Prompt) -> bool:
    """Whether a prompt is asked through mellea."""
    return prompt.memory != "none" or bool(prompt.requirements) or bool(prompt.repair_attempts)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")
