"""What tests of compiled flows call: one node, or a whole run, with models that answer from the test.

What comes back is plain data, to be compared with what it was when the test was generated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from tempfile import TemporaryDirectory
from typing import Any

from agentflow.ir import ModelRef
from flow_runtime.compiled.agent import METHOD, LocalAgent
from flow_runtime.compiled.context import Context, Inputs
from flow_runtime.errors import NodeFailure
from flow_runtime.flow_tests import _Hurried as Hurried
from flow_runtime.local import LocalSettings
from flow_runtime.models import ModelAnswer, Models, name_of
from flow_runtime.scripted_models import ScriptedModels
from runtime_core.report import RunReport
from runtime_core.stores.url import MEMORY

Behaviour = dict[str, Any]


def node_behaviour(
    agent: type[LocalAgent],
    node: str,
    *,
    inputs: Inputs | None = None,
    request: Mapping[str, Any] | None = None,
    answers: Mapping[str, Any] | None = None,
) -> Behaviour:
    """What a node's method returns for these inputs, or how it fails, and what it asks models.

    `answers` are by role, in the form of a flow's own tests.
    """
    with TemporaryDirectory(prefix="af-") as folder:
        return asyncio.run(try_node(agent, node, inputs or {}, request or {}, answers or {}, test_settings(folder)))


def run_behaviour(
    agent: type[LocalAgent], request: Mapping[str, Any], *, answers: Mapping[str, Any] | None = None
) -> Behaviour:
    """The output or the error of a run, and what became of each node."""

    async def run(settings: LocalSettings) -> Behaviour:
        async with agent(models=ScriptedModels(answers or {}), settings=settings) as opened:
            return outcome_of(await opened.run(request))

    with TemporaryDirectory(prefix="af-") as folder:
        return asyncio.run(run(test_settings(folder)))


def test_settings(folder: str) -> LocalSettings:
    """Nothing is kept, nothing is waited for between attempts, and the feature store is an empty folder."""
    return LocalSettings(store=MEMORY, clock=Hurried(), feature_store=f"local:{folder}", embedder="test.embed")


async def try_node(
    agent: type[LocalAgent],
    node: str,
    inputs: Inputs,
    request: Mapping[str, Any],
    answers: Mapping[str, Any],
    settings: LocalSettings,
) -> Behaviour:
    """`node_behaviour` in a running loop."""
    models = Overheard(ScriptedModels(answers))
    async with agent(models=models, settings=settings) as opened:
        try:
            found: Behaviour = {"outputs": dict(await getattr(opened, METHOD + node)(inputs, Context(request)))}
        except NodeFailure as exc:
            found = {"failure": {"reason": str(exc), "type": exc.kind, "attempts": exc.attempts}}
    return {**found, "asked": models.asked} if models.asked else found


def outcome_of(report: RunReport) -> Behaviour:
    """A report as plain data, without ids and times."""
    nodes = {name: node.status for name, node in report.nodes.items()}
    if report.error is not None:
        return {"error": {"code": report.error.code, "message": report.error.message}, "nodes": nodes}
    return {"output": report.output, "nodes": nodes}


class Overheard:
    """Models that keep what they were asked, and what they said."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self.asked: list[dict[str, Any]] = []
        self.said: list[tuple[str, ModelAnswer]] = []

    async def chat(
        self,
        model: str | ModelRef,
        messages: Sequence[Mapping[str, Any]],
        params: Mapping[str, Any],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> ModelAnswer:
        asked = {"model": name_of(model), "messages": [dict(each) for each in messages], "params": dict(params)}
        self.asked.append({**asked, "tools": [dict(each) for each in tools]} if tools else asked)
        answer = await self._models.chat(model, messages, params, tools=tools)
        self.said.append((name_of(model), answer))
        return answer

    @property
    def judge(self) -> str | None:
        """Who judges answers, of models that know it."""
        return getattr(self._models, "judge", None)

    async def embed(self, role: str, texts: Sequence[str]) -> list[list[float]]:
        return await self._models.embed(role, texts)


test_settings.__test__ = False  # pyright: ignore[reportFunctionMemberAccess] - pytest would take it for a test
