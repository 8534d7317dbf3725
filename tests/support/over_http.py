"""Entries of the table behind the predictor's own HTTP side, wherever its runner's nodes are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from starlette.applications import Starlette

from agentflow_serve.call import CallMeta
from agentflow_serve.kserve_app import build_predictor_app
from agentflow_serve.limits import EdgeLimits
from flow_runtime.runner import FlowRunner
from runtime_core.report import RunReport
from support.predictor_server import serving
from support.surroundings import Surroundings
from support.table import Case, Run, problems


@dataclass
class Recorded:
    """Runs a flow as the predictor does, and keeps the reports."""

    runner: FlowRunner
    reports: list[RunReport] = field(default_factory=list)

    async def run(self, request: dict[str, Any], call: CallMeta) -> RunReport:
        report = await self.runner.run(
            request, identity=call.identity, trace_id=call.trace_id, deadline_s=call.deadline_s
        )
        self.reports.append(report)
        return report


@dataclass
class Door:
    """One HTTP server for one predictor after the other: starting uvicorn costs more than a flow."""

    client: httpx.AsyncClient
    app: Any

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


@asynccontextmanager
async def http_door() -> AsyncIterator[Door]:
    async with httpx.AsyncClient(timeout=60) as client:
        door = Door(client, app=Starlette())
        async with serving(door) as port:
            client.base_url = f"http://127.0.0.1:{port}"
            yield door


async def answer_over_http(runner: FlowRunner, request: dict[str, Any], door: Door) -> tuple[httpx.Response, RunReport]:
    """What a client sees of one request, and the report behind it."""
    recorded = Recorded(runner)
    planned = runner.plan
    door.app = build_predictor_app(name=planned.name, signature=planned.signature, runner=recorded, limits=EdgeLimits())
    response = await door.client.post(f"/v1/models/{planned.name}:predict", json={"instances": [request]})
    return response, recorded.reports[-1]


async def problems_over_http(case: Case, runner: FlowRunner, around: Surroundings, door: Door) -> list[str]:
    """How the runs of an entry differ from what it says: status, body and nodes."""
    found: list[str] = []
    for run in case.runs:
        response, report = await answer_over_http(runner, run.request, door)
        lines = [*_wire_problems(run, response, report), *problems(run, around.plain(report))]
        found += [f"{run.request}: {line}" for line in lines]
    return found


def _wire_problems(run: Run, response: httpx.Response, report: RunReport) -> list[str]:
    """The answer on the wire is that of the report, with the status that the table says."""
    body = response.json()
    expected = 200 if run.error is None else run.error.status
    if response.status_code != expected:
        return [f"status {response.status_code}, not {expected}: {response.text[:300]}"]
    if run.error is None:
        return [] if body == {"predictions": [report.output]} else [f"the body is {response.text[:300]}"]
    seen = {name: body[name] for name in ("code", "node", "trace_id", "retry_after")}
    wanted = {
        "code": run.error.code,
        "node": run.error.node,
        "trace_id": report.trace_id,
        "retry_after": run.error.retry_after,
    }
    return [] if seen == wanted and run.error.says in body["error"] else [f"the body is {body}"]
