"""The prompt layer of a node: render, call the model, parse the answer (IR.md Q5, Q6, Q21, Q35)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from agentflow.ir import ModelRef, Prompt
from agentflow.scalars import finite
from agentflow.schemas import compile_schema
from agentflow.settings import NodeSettings
from agentflow.templates import compile_template
from flow_runtime.errors import OutputInvalid
from flow_runtime.images import Images
from flow_runtime.models import Models
from flow_runtime.parts import NodeParts


class PromptLayer:
    """One node's prompt, compiled once."""

    def __init__(
        self, node: str, prompt: Prompt, settings: NodeSettings, input_names: tuple[str, ...], parts: NodeParts
    ) -> None:
        self._prompt = prompt
        self._settings = settings
        self._template = compile_template(prompt.template, (*input_names, "context"))
        self._images = Images(prompt.images, (*input_names, "context"))
        self._schema = compile_schema(prompt.output_schema) if prompt.output_schema is not None else None
        self._params = self._fixed_params(node)
        self._tools = None
        if prompt.tools:
            from flow_runtime.prompt_tools import PromptTools

            self._tools = PromptTools(node, prompt, settings, parts)

    async def ask(self, models: Models, model: str | ModelRef, values: Mapping[str, Any]) -> Any:
        """The model's answer: its text, or the parsed and checked JSON where the prompt has an `output_schema`.

        Raises TemplateFailed, ImageInvalid, ModelFailed, NodeTimeout, or OutputInvalid when the answer does not fit.
        """
        text = self._template.render(values)
        images = self._images.parts(values)
        content = [{"type": "text", "text": text}, *images] if images else text
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if self._prompt.system:
            messages.insert(0, {"role": "system", "content": self._prompt.system})
        if self._tools is not None:
            return self.parse(await self._tools.ask(models, model, messages, self._params))
        answer = await models.chat(model, messages, self._params)
        return self.parse(answer.text)

    def static(self) -> Any:
        """What `fallback.static_response` stands for."""
        fallback = self._prompt.fallback
        assert fallback is not None and fallback.static_response is not None
        return self.parse(fallback.static_response)

    def parse(self, text: str) -> Any:
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


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")
