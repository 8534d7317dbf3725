"""Every entry of the table: its findings, its plan, its runs in this process and behind the predictor's HTTP side.

tests/serve/test_table.py runs the same entries with every node in a deployment of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from agentflow import from_mapping, inspect_flow, plan
from agentflow.levels import levels
from agentflow.placement import stages
from support.in_process import local_runner
from support.over_http import Door, http_door, problems_over_http
from support.surroundings import Surroundings, surroundings
from support.table import Case, problems, shown, table

in_one_loop = pytest.mark.asyncio(loop_scope="module")
every_entry = pytest.mark.parametrize("case", table(), ids=shown)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def around() -> AsyncIterator[Surroundings]:
    async with surroundings() as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door() -> AsyncIterator[Door]:
    async with http_door() as opened:
        yield opened


def test_the_table_is_large_and_names_its_ideas():
    names = [case.name for case in table()]
    assert len(names) >= 40
    assert len(set(names)) == len(names)


@every_entry
def test_validate_finds_no_error(case: Case):
    flow, findings = inspect_flow(case.document)
    assert flow is not None
    assert [finding for finding in findings if finding.severity == "error"] == []
    unneeded = {finding.path[1] for finding in findings if finding.code == "unneeded-node"}
    assert unneeded == case.unneeded


@every_entry
def test_plan_holds_what_runs(case: Case):
    planned = plan(from_mapping(case.document).flow)
    graph = planned.graph
    running = (*graph.nodes, *planned.tools)
    assert set(running) == case.flow["nodes"].keys() - case.unneeded
    assert [stage.nodes for stage in stages(planned, "per_node")] == [(node,) for node in running]
    assert [stage.deployment for stage in stages(planned, "inline")] == [None] * bool(graph.nodes)
    assert {node for level in levels(graph) for node in level} == set(graph.nodes)
    for run in case.runs:
        assert run.failed | run.skipped <= set(graph.nodes)
        if run.error is None:
            assert all(graph.handles_failure(node) for node in run.failed)
        elif run.error.node in run.failed and run.error.code == "node_failed":
            assert not graph.handles_failure(run.error.node)
        if run.error is None and (outputs := planned.signature.outputs):
            assert isinstance(run.output, dict)
            assert run.output.keys() <= {output.name for output in outputs}


@in_one_loop
@every_entry
async def test_local(case: Case, around: Surroundings, tmp_path: Path):
    async with local_runner(case, around, tmp_path) as runner:
        for run in case.runs:
            report = await runner.run(run.request)
            assert problems(run, around.plain(report)) == [], run.request
            if report.nodes:
                assert set(report.nodes) == set(runner.plan.graph.nodes)


@in_one_loop
@every_entry
async def test_inline_over_http(case: Case, around: Surroundings, door: Door, tmp_path: Path):
    async with local_runner(case, around, tmp_path) as runner:
        assert await problems_over_http(case, runner, around, door) == []
