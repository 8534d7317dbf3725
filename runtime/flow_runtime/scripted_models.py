"""Models that answer from the script of a flow test."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from agentflow.checks.flow_tests import JUDGE, scripted_tool_calls
from agentflow.ir import ModelRef
from flow_runtime.errors import ModelFailed, NodeTimeout
from flow_runtime.models import ModelAnswer, name_of
from llm_client.results import ToolCall
from llmhub_runtime.sim.embeddings import embed

_FAILURES = {"timeout": NodeTimeout, "error": ModelFailed}


class ScriptedModels:
    """Per role an answer for every call, or a list of answers used in turn.

    An answer is text, JSON, or `{error: timeout}` and `{error: error}` for a call that fails. A prompt with tools may
    get `{tool_calls: [{name, arguments}]}`; arguments that are text stay as they are. A call without an answer fails,
    and `problems` says so: a fallback must not hide that a script is too short.
    """

    def __init__(self, scripts: Mapping[str, Any]) -> None:
        self._scripts = scripts
        self.calls: Counter[str] = Counter()
        self.problems: list[str] = []

    @property
    def judge(self) -> str | None:
        """Answers are judged by the script of the role `judge`, or by that of the prompt's own role."""
        return JUDGE if JUDGE in self._scripts else None

    async def chat(
        self,
        model: str | ModelRef,
        messages: Sequence[Mapping[str, Any]],
        params: Mapping[str, Any],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> ModelAnswer:
        role = name_of(model)
        self.calls[role] += 1
        answer = self._answer(role, self.calls[role])
        if isinstance(answer, dict) and set(answer) == {"error"} and answer["error"] in _FAILURES:
            raise _FAILURES[answer["error"]](f"the test lets '{role}' fail")
        if tools and (asked := scripted_tool_calls(answer)) is not None:
            return ModelAnswer(text="", finish_reason="tool_calls", tool_calls=_calls(asked))
        return ModelAnswer(text=_text(answer), finish_reason="stop")

    async def embed(self, role: str, texts: Sequence[str]) -> list[list[float]]:
        """The vectors of the simulated model, whatever the role is: likeness needs no script."""
        self.calls[role] += 1
        return [list(embed(text)) for text in texts]

    def _answer(self, role: str, number: int) -> Any:
        if role not in self._scripts:
            raise self._problem(f"models: '{role}' was asked, but the test has no answer for it", role)
        script = self._scripts[role]
        if not isinstance(script, list):
            return script
        if number > len(script):
            raise self._problem(f"models: '{role}' was asked {number} times, but has {len(script)} answers", role)
        return script[number - 1]

    def _problem(self, message: str, role: str) -> ModelFailed:
        self.problems.append(message)
        return ModelFailed(message, model=role)


def _calls(asked: Sequence[Mapping[str, Any]]) -> tuple[ToolCall, ...]:
    return tuple(
        ToolCall(id=f"call-{index}", name=call["name"], arguments=_text(call.get("arguments", {})))
        for index, call in enumerate(asked)
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
