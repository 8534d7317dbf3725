"""One tenant floods a predictor: what another tenant's requests then take, with the fair queue and without it.

The predictor's own application in this process, with a flow that needs one of a few places of a model, each for the
same time, first come first served: what a flood fills up in practice.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from statistics import median
from typing import Any

from agentflow.signature import FlowField, Signature
from agentflow.types import PortType
from agentflow_serve.call import CallMeta
from agentflow_serve.limits import EdgeLimits
from agentflow_serve.request_headers import RawHeaders, values
from benchmarks.harness import Figure
from runtime_core.context import Identity
from runtime_core.report import RunReport

PLACES, CALL_S = 8, 0.05
FLOOD, WAITING = 64, 16
PER_SCOPE = 4
ASKED = 60
ASKED_SHORT = 15
BETWEEN_S = 0.01
TEXT = Signature(inputs=(FlowField("x", PortType.STRING),), outputs=(FlowField("y", PortType.STRING),))
BODY = json.dumps({"instances": [{"x": "hi"}]}).encode()
App = Callable[..., Awaitable[None]]


class Named:
    """Who calls is who the request says; looking a key up is not what is measured."""

    async def identify(self, headers: RawHeaders) -> Identity:
        return Identity(scope_id=values(headers, b"x-api-key")[0])


class Model:
    """A few places, and a queue in front of them that knows no tenants."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(PLACES)

    async def run(self, request: dict[str, Any], call: CallMeta) -> RunReport:
        async with self._places:
            await asyncio.sleep(CALL_S)
        trace_id = call.trace_id or "none"
        return RunReport(run_id=trace_id, trace_id=trace_id, output={"y": request["x"]})


def measure(short: bool) -> list[Figure]:
    fair = EdgeLimits(per_scope_concurrency=PER_SCOPE, per_scope_queue=WAITING)
    asked = ASKED_SHORT if short else ASKED
    quiet = asyncio.run(_median(fair, asked=asked, flood=0))
    with_queue = asyncio.run(_median(fair, asked=asked, flood=FLOOD))
    without = asyncio.run(_median(EdgeLimits(), asked=asked, flood=FLOOD))
    name = "a tenant beside a flood"
    return [
        Figure("fair queue", f"{name}: median latency against a quiet predictor", with_queue / quiet, "x", target=1.3),
        Figure("fair queue", f"{name}, without the queue", without / quiet, "x"),
    ]


async def _median(limits: EdgeLimits, *, asked: int, flood: int) -> float:
    """The median seconds of a quiet tenant's requests while another one keeps `flood` requests in flight."""
    from agentflow_serve.kserve_app import build_predictor_app

    app = build_predictor_app(name="m", signature=TEXT, runner=Model(), limits=limits, auth=Named())
    flooding = [asyncio.create_task(_again_and_again(app)) for _ in range(flood)]
    try:
        await _ask(app, "quiet")
        took = []
        for _ in range(asked):
            await asyncio.sleep(BETWEEN_S)
            began = time.perf_counter()
            assert await _ask(app, "quiet") == 200
            took.append(time.perf_counter() - began)
        return median(took)
    finally:
        for task in flooding:
            task.cancel()
        for task in flooding:
            with suppress(asyncio.CancelledError):
                await task


async def _again_and_again(app: App) -> None:
    while True:
        if await _ask(app, "flood") != 200:
            await asyncio.sleep(CALL_S)  # a client that is told to wait, and does not wait as long


async def _ask(app: App, scope_id: str) -> int:
    """The status of one request, without a socket."""
    pending = [{"type": "http.request", "body": BODY, "more_body": False}]
    status: list[int] = []

    async def receive() -> dict[str, Any]:
        if pending:
            return pending.pop()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            status.append(message["status"])

    headers = [(b"content-type", b"application/json"), (b"x-api-key", scope_id.encode())]
    path = "/v1/models/m:predict"
    scope = {"type": "http", "method": "POST", "path": path, "root_path": "", "query_string": b"", "headers": headers}
    await app(scope, receive, send)
    return status[0]
