"""Models that answer from the script of a flow test."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from agentflow.ir import ModelRef
from flow_runtime.errors import ModelFailed, NodeTimeout
from flow_runtime.models import ModelAnswer
from llmhub_runtime.sim.embeddings import embed

_FAILURES = {"timeout": NodeTimeout, "error": ModelFailed}


class ScriptedModels:
    """Per role an answer for every call, or a list of answers used in turn.

    An answer is text, JSON, or `{error: timeout}` and `{error: error}` for a call that fails. A call without an
    answer fails, and `problems` says so: a fallback must not hide that a script is too short.
    """

    def __init__(self, scripts: Mapping[str, Any]) -> None:
        self._scripts = scripts
        self.calls: Counter[str] = Counter()
        self.problems: list[str] = []

    async def chat(
        self, model: str | ModelRef, messages: Sequence[Mapping[str, Any]], params: Mapping[str, Any]
    ) -> ModelAnswer:
        role = model if isinstance(model, str) else f"{model.provider}/{model.name}"
        self.calls[role] += 1
        answer = self._answer(role, self.calls[role])
        if isinstance(answer, dict) and set(answer) == {"error"} and answer["error"] in _FAILURES:
            raise _FAILURES[answer["error"]](f"the test lets '{role}' fail")
        text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
        return ModelAnswer(text=text, finish_reason="stop")

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
