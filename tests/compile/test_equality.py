"""A compiled flow, executed, gives what the flow file gives: every example, every entry of the table, random flows.

`AGENTFLOW_COMPILED=full` takes 200 random flows instead of 40.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from agentflow import from_mapping, load, plan
from agentflow.fingerprint import canonical
from flow_runtime import LocalFlow, LocalSettings
from flow_runtime.compiled import LocalAgent
from flow_runtime.scripted_models import ScriptedModels
from llmhub_runtime import LLMHub, parse_runtime_config
from runtime_core.report import RunReport
from support.compiled import agent_of, imported, written
from support.random_flows import flow_files, requests
from support.surroundings import Surroundings, surroundings
from support.table import Case, problems, shown, table

CONFIGS = Path(__file__).parents[2] / "configs"
EXAMPLES = sorted((CONFIGS / "flows").glob("*.yaml"))
RANDOM = 200 if os.environ.get("AGENTFLOW_COMPILED") == "full" else 40
in_one_loop = pytest.mark.asyncio(loop_scope="module")


def timeless(report: RunReport) -> tuple[Any, ...]:
    """A report without what differs between two runs of the same flow: ids and times."""
    nodes = {name: replace(node, started_s=None, finished_s=None) for name, node in report.nodes.items()}
    return report.output, report.error, nodes, report.use


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def around() -> AsyncIterator[Surroundings]:
    async with surroundings() as opened:
        yield opened


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_class_of_an_example_is_its_flow(path: Path, tmp_path: Path):
    loaded = load(path)
    planned = plan(loaded.flow)
    with imported(written(planned, tmp_path, places=loaded.source_of)) as module:
        made = agent_of(module).plan()
    assert made.graph == planned.graph
    assert made.settings == planned.settings
    assert made.signature == planned.signature
    assert made.fingerprint == planned.fingerprint
    assert json.loads(canonical(made.flow))["nodes"] == json.loads(canonical(loaded.flow))["nodes"]


def fixed(request: Mapping[str, Any]) -> dict[str, Any]:
    """The request with the fields that every run would make for itself."""
    return {"trace_id": "compiled", "event_time": "2026-01-01T00:00:00+00:00", **request}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
async def test_the_tests_of_an_example_end_alike(path: Path, tmp_path: Path):
    loaded = load(path)
    live, compiled = tmp_path / "live", tmp_path / "compiled"
    for folder in (live, compiled):
        shutil.copytree(CONFIGS / "features", folder)
    with imported(written(plan(loaded.flow), tmp_path)) as module:
        agent = agent_of(module)
        for test in loaded.flow.tests:
            ends: list[Any] = []
            for made, store in ((partial(LocalFlow, loaded.flow), live), (agent, compiled)):
                models = ScriptedModels(test.models)
                used = LocalSettings(store="memory:", feature_store=f"local:{store}", embedder="llm.embed")
                async with made(models=models, settings=used) as runner:
                    ends.append((timeless(await runner.run(fixed(test.input))), models.calls, models.problems))
            assert ends[0] == ends[1], test.name


@in_one_loop
@pytest.mark.parametrize("case", table(), ids=shown)
async def test_an_entry_of_the_table_ends_as_the_table_says(case: Case, around: Surroundings, tmp_path: Path):
    """tests/table holds live runs to the same."""
    around.prepare(case)
    used = LocalSettings(store=f"sqlite:///{tmp_path / 'state.sqlite'}", allow_hosts=around.allow_hosts)
    with imported(written(plan(around.flow(case)), tmp_path)) as module:
        async with AsyncExitStack() as stack:
            hub = LLMHub(config_obj=parse_runtime_config(around.llmhub)) if case.asks else None
            if hub is not None:
                await stack.enter_async_context(hub)
            agent = await stack.enter_async_context(agent_of(module)(hub=hub, settings=used))
            for run in case.runs:
                report = await agent.run(run.request)
                assert problems(run, around.plain(report)) == [], run.request


@settings(max_examples=RANDOM, phases=[Phase.generate], derandomize=True)
@given(flow_files(), st.lists(requests(), min_size=1, max_size=3))
def test_a_random_flow_ends_alike(document: dict[str, Any], asked: list[dict[str, Any]]):
    flow = from_mapping(document).flow

    async def compare(agent: type[LocalAgent]) -> None:
        async with LocalFlow(flow) as live, agent() as compiled:
            for request in map(fixed, asked):
                assert timeless(await live.run(request)) == timeless(await compiled.run(request)), request

    with tempfile.TemporaryDirectory(prefix="af-") as folder, imported(written(plan(flow), Path(folder))) as module:
        asyncio.run(compare(agent_of(module)))
