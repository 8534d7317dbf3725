"""Small flows for tests, from as little YAML as says what the test is about."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentflow import Flow, loads
from agentflow.ir import ModelRef
from flow_runtime import LocalFlow, LocalSettings
from flow_runtime.models import ModelAnswer
from llmhub_runtime.sim.embeddings import embed
from runtime_core.report import RunReport


def small_flow(nodes: str, edges: Sequence[str], *, requires: Sequence[str] = ("x",), **top: Any) -> Flow:
    """A checked flow. `nodes` is YAML; an edge is `"a.out -> b.in"`, perhaps with `" if condition"`."""
    lines = []
    for edge in edges:
        ends, _, condition = edge.partition(" if ")
        source, target = (end.strip() for end in ends.split("->"))
        lines.append({"from": source, "to": target} | ({"condition": condition} if condition else {}))
    text = "\n".join(
        [
            'version: "1.0"',
            "metadata: {name: small}",
            f"context: {json.dumps({'requires': list(requires)} | top.pop('context', {}))}",
            "nodes:" if nodes.strip() else "nodes: {}",
            textwrap.indent(textwrap.dedent(nodes), "  "),
            f"edges: {json.dumps(lines)}",
            *(f"{key}: {json.dumps(value)}" for key, value in top.items()),
        ]
    )
    return loads(text).flow


@dataclass
class ScriptedModels:
    """Models that answer from a script: per role a list of answers used in turn, the last one for ever.

    An answer is a text, a JSON value, an exception to raise, or a function of the messages.
    """

    answers: Mapping[str, Sequence[Any]]
    calls: list[tuple[str, list[dict[str, Any]], dict[str, Any]]] = field(default_factory=list)

    async def chat(
        self,
        model: str | ModelRef,
        messages: Sequence[Mapping[str, Any]],
        params: Mapping[str, Any],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> ModelAnswer:
        role = model if isinstance(model, str) else f"{model.provider}/{model.name}"
        earlier = sum(called == role for called, _, _ in self.calls)
        self.calls.append((role, [dict(message) for message in messages], dict(params)))
        script = self.answers[role]
        answer = script[min(earlier, len(script) - 1)]
        if isinstance(answer, Callable):
            answer = await answer(messages)
        if isinstance(answer, BaseException):
            raise answer
        return ModelAnswer(text=answer if isinstance(answer, str) else json.dumps(answer))

    async def embed(self, role: str, texts: Sequence[str]) -> list[list[float]]:
        """As the simulated model does; the texts stand among the calls."""
        self.calls.append((role, [{"role": "input", "content": text} for text in texts], {}))
        return [list(embed(text)) for text in texts]


async def run_flow(
    flow: Flow,
    request: Mapping[str, Any] | None = None,
    *,
    models: ScriptedModels | None = None,
    settings: LocalSettings | None = None,
    **options: Any,
) -> RunReport:
    """One request through a flow in this process."""
    async with LocalFlow(flow, models=models, settings=settings) as runner:
        return await runner.run({"x": 1} if request is None else request, **options)
