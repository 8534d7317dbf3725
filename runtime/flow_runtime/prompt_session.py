"""A prompt that is asked through mellea: what precedes it, what its answer must fulfil, and who judges that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agentflow.checks.memory import VALUE, check_names
from agentflow.errors import ExpressionFailed
from agentflow.expressions import compile_expression
from agentflow.ir import ModelRef, Prompt
from flow_runtime.call import NodeCall
from flow_runtime.errors import OutputInvalid
from flow_runtime.models import ModelAnswer, Models, NamesJudge
from flow_runtime.models_engine import JUDGE, ModelsEngine
from flow_runtime.prompt import Answered
from flow_runtime.prompt_tools import PromptTools
from mellea_runtime.errors import RequirementsUnmet
from mellea_runtime.prompting import Asked, Prompter
from mellea_runtime.requirements import DEFAULT_REPAIRS, Check

Parse = Callable[[str], Any]
Bind = Callable[[Mapping[str, Any]], Check]


class PromptSession:
    """Compiled once. What it gives mellea is made anew for each call: nothing of one request reaches the next."""

    def __init__(self, prompt: Prompt, input_names: Sequence[str], *, parse: Parse, tools: PromptTools | None) -> None:
        self._prompt = prompt
        self._parse = parse
        self._tools = tools
        self._prompter = Prompter()
        self._repairs = DEFAULT_REPAIRS if prompt.repair_attempts is None else prompt.repair_attempts
        names = check_names(input_names)
        self._checks: list[Bind] = [
            _judged(each.text) if each.check is None else _computed(each.text, each.check, names, parse)
            for each in prompt.requirements
        ]

    async def ask(
        self,
        models: Models,
        model: str | ModelRef,
        text: str,
        images: Sequence[str],
        params: Mapping[str, Any],
        values: Mapping[str, Any],
        call: NodeCall,
    ) -> Answered:
        """The first answer that passes. Raises OutputInvalid when the last repair does not, and what models raise."""
        loop = None if self._tools is None else _ToolLoop(self._tools, models, model)
        judge = models.judge if isinstance(models, NamesJudge) else None
        checks = [bind(values) for bind in self._checks]
        if self._prompt.output_schema is not None and (checks or self._prompt.repair_attempts):
            checks.append(Check("fit output_schema", problem=self._misfit, told=False))
        asked = Asked(
            text=text,
            system=self._prompt.system,
            images=tuple(images),
            history=call.memory or (),
            checks=tuple(checks),
            repairs=self._repairs,
            params=dict(params),
        )
        engine = ModelsEngine(models, model, judge=judge, ask=loop)
        try:
            result = await self._prompter.ask(asked, engine, judge=JUDGE)
        except RequirementsUnmet as exc:
            raise OutputInvalid(f"the model's answer was not accepted: {exc}") from exc
        usage = {"input": result.usage.input, "output": result.usage.output}
        answer = ModelAnswer(result.content, result.finish_reason or None, usage)
        return Answered(answer, () if loop is None else loop.between)

    def _misfit(self, text: str) -> str | None:
        try:
            self._parse(text)
        except OutputInvalid as exc:
            return str(exc)
        return None


class _ToolLoop:
    """A prompt's own model with its tools: one call, as mellea sees it. `between` is what its last answer took."""

    def __init__(self, tools: PromptTools, models: Models, model: str | ModelRef) -> None:
        self._tools = tools
        self._models = models
        self._model = model
        self.between: Sequence[Mapping[str, Any]] = ()

    async def __call__(self, messages: Sequence[Mapping[str, Any]], params: Mapping[str, Any]) -> ModelAnswer:
        answered = await self._tools.ask(self._models, self._model, messages, params)
        self.between = answered.between
        return answered.answer


def _judged(text: str) -> Bind:
    return lambda values: Check(text)


def _computed(text: str, source: str, names: frozenset[str], parse: Parse) -> Bind:
    expression = compile_expression(source, names)

    def bind(values: Mapping[str, Any]) -> Check:
        def problem(answer: str) -> str | None:
            try:
                holds = expression.evaluate({**values, VALUE: parse(answer)})
            except (ExpressionFailed, OutputInvalid) as exc:
                return f"{text} ({exc})"
            return None if holds else text

        return Check(text, problem=problem)

    return bind
