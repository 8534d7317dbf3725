"""Random flow files: they have no findings, and live runs end as a naive interpreter of the file says."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from agentflow import Flow, inspect_flow
from agentflow.differences import differences
from flow_runtime import LocalFlow
from runtime_core.report import RunReport
from support.interpreter import Expected, interpret, without_reasons
from support.over_http import answer_over_http, http_door
from support.random_flows import flow_files, requests


def checked(document: dict[str, Any]) -> Flow:
    flow, findings = inspect_flow(document)
    assert [finding for finding in findings if finding.severity == "error"] == []
    assert flow is not None
    return flow


def disagreements(expected: Expected, report: RunReport) -> list[str]:
    code = report.error.code if report.error else None
    if expected.aborts:
        node = report.error.node if report.error and code == "node_failed" else None
        return [] if (code, node) in expected.aborts else [f"{report.error} is none of {expected.aborts}"]
    statuses = {name: node.status for name, node in report.nodes.items()}
    return [
        *differences(expected.code, code, "error"),
        *differences(expected.statuses, statuses, "nodes"),
        *(differences(expected.output, without_reasons(report.output), "output") if code is None else []),
    ]


@settings(max_examples=max(300, settings.default.max_examples))
@given(flow_files(), st.lists(requests(), min_size=1, max_size=4))
def test_a_local_run_ends_as_the_naive_interpreter_says(document: dict[str, Any], asked: list[dict[str, Any]]):
    flow = checked(document)

    async def reports() -> list[RunReport]:
        async with LocalFlow(flow) as runner:
            return [await runner.run(request) for request in asked]

    for request, report in zip(asked, asyncio.run(reports()), strict=True):
        assert disagreements(interpret(document, request), report) == [], request


@settings(max_examples=8, phases=[Phase.generate], derandomize=True)
@given(flow_files(), st.lists(requests(), min_size=1, max_size=4))
def test_and_so_does_a_run_over_http(document: dict[str, Any], asked: list[dict[str, Any]]):
    flow = checked(document)

    async def check() -> None:
        async with LocalFlow(flow) as runner, http_door() as door:
            for request in asked:
                response, report = await answer_over_http(runner, request, door)
                assert disagreements(interpret(document, request), report) == [], request
                if report.error is None:
                    assert (response.status_code, response.json()) == (200, {"predictions": [report.output]})
                else:
                    assert response.status_code == (400 if report.error.code == "bad_input" else 500)
                    assert response.json()["code"] == report.error.code

    asyncio.run(check())
