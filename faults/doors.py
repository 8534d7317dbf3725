"""A predictor and a streaming door over the same ledger, behind the edge of served flows, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from agentflow import from_mapping
from agentflow_serve.edge import ASGIApp, Edge, Receive, Scope, Send
from agentflow_serve.limits import EdgeLimits
from faults.rig import ROLE, Desk, Said, desk, hub_on
from flow_runtime import LocalFlow
from flow_runtime.hub_models import local_models
from llm_client import RequestContext, RequestSpec, TextDelta
from support.over_http import Recorded
from support.predictor_server import serving

FLOW = {
    "version": "1.0",
    "metadata": {"name": "door"},
    "context": {"requires": ["x"]},
    "nodes": {
        "ask": {
            "inputs": [{"name": "x", "type": "string"}],
            "outputs": [{"name": "text", "type": "string"}],
            "prompt": {"template": "{{ x }}", "role": ROLE},
        }
    },
    "edges": [{"from": "_input.x", "to": "ask.x"}, {"from": "ask.text", "to": "_output.text"}],
}
PLAIN, STREAM = "/v1/models/door:predict", "/stream"
MAX_TOKENS = 400
TICK_S = 0.02


async def serve_until(stop: Callable[[], bool], url: str, base: str, said: Said) -> None:
    """Says on which port it listens, serves until `stop` says so, and says how late its own timers were (p99)."""
    flow = from_mapping(FLOW).flow
    async with (
        desk(url, base) as place,
        hub_on(base) as hub,
        local_models(flow, hub, ledger=url) as models,
        LocalFlow(flow, models=models) as runner,
        serving(_doors(_predictor(Recorded(runner)), Edge(_Streams(place), limits=EdgeLimits()))) as port,
    ):
        await place.engine.warm_up([ROLE])
        said.say(said="port", port=port)
        lags: list[float] = []
        while not stop():
            due = time.monotonic() + TICK_S
            await asyncio.sleep(TICK_S)
            lags.append(time.monotonic() - due)
        said.say(said="lag", lag_s=sorted(lags)[int(0.99 * (len(lags) - 1))] if lags else 0.0)


def port_of(said: Said) -> int:
    """Where the server listens, once it does."""
    give_up = time.monotonic() + 120
    while not (lines := said.all()):
        assert time.monotonic() < give_up, "the server did not start"
        time.sleep(0.05)
    return lines[0]["port"]


def _predictor(runner: Recorded) -> ASGIApp:
    from agentflow_serve.kserve_app import build_predictor_app

    planned = runner.runner.plan
    return build_predictor_app(name=planned.name, signature=planned.signature, runner=runner, limits=EdgeLimits())


def _doors(predictor: ASGIApp, streams: ASGIApp) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (streams if scope.get("path") == STREAM else predictor)(scope, receive, send)

    return app


class _Streams:
    """`{"x": "..."}` is answered by the pieces of the engine's stream."""

    def __init__(self, place: Desk) -> None:
        self._engine = place.engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        message: Any = await receive()
        question = RequestSpec.of(json.loads(message["body"])["x"], role=ROLE, max_tokens=MAX_TOKENS)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        async with aclosing(self._engine.stream(question, context=RequestContext())) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    await send({"type": "http.response.body", "body": event.text.encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
