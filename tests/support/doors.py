"""The ways in from outside, as an attacker meets them: a flow file, and a predictor's socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from agentflow.findings import Finding
from agentflow.ir import Flow
from agentflow.loading import inspect_flow
from agentflow.planning import plan
from agentflow_serve.call import CallMeta
from agentflow_serve.kserve_app import build_predictor_app
from agentflow_serve.limits import EdgeLimits
from flow_runtime import LocalFlow
from flow_runtime.models import Models
from flow_runtime.runner import FlowRunner
from runtime_core.report import RunReport
from support.cost import assert_cheap
from support.flows import small_flow
from support.predictor_server import serving

LEAKS = ("Traceback", 'File "', "/flow_runtime/", "/agentflow", ".py")


@dataclass(frozen=True, slots=True)
class Reply:
    """`head` is as it was sent, without the empty line at its end."""

    head: str
    body: bytes

    @property
    def status(self) -> int:
        return int(self.head.split(" ", 2)[1])

    @property
    def headers(self) -> dict[str, str]:
        rows = (line.partition(":") for line in self.head.split("\r\n")[1:])
        return {name.lower(): value.strip() for name, _, value in rows}

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Runs:
    """A real flow behind the predictor's interface; `calls` are the ones that got through to it."""

    runner: FlowRunner
    calls: list[CallMeta]

    async def run(self, request: dict[str, Any], call: CallMeta) -> RunReport:
        self.calls.append(call)
        return await self.runner.run(
            request, identity=call.identity, trace_id=call.trace_id, deadline_s=call.deadline_s
        )


@dataclass
class Predictor:
    """The predictor of one flow, named `m`, on a port of loopback."""

    port: int
    calls: list[CallMeta]

    async def send(self, raw: bytes) -> Reply:
        """Exactly these bytes, and what comes back until the server closes or has answered."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(raw)
            with suppress(ConnectionError):
                await writer.drain()
            return await read_reply(reader)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def post(
        self, path: str, body: Any, *headers: tuple[str, str], content_type: str = "application/json"
    ) -> Reply:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.send(post(path, data, *headers, content_type=content_type))

    async def predict(self, *instances: Any, headers: Mapping[str, str] | None = None) -> Reply:
        return await self.post("/v1/models/m:predict", {"instances": list(instances)}, *(headers or {}).items())


def post(path: str, body: bytes, *headers: tuple[str, str], content_type: str = "application/json") -> bytes:
    """A whole request."""
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(body)}", f"content-type: {content_type}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    async with asyncio.timeout(20):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip("\r\n")
        reply = Reply(head, b"")
        length = reply.headers.get("content-length")
        if length is not None:
            return Reply(head, await reader.readexactly(int(length)))
        with suppress(ConnectionError):
            return Reply(head, await reader.read())
        return reply


@asynccontextmanager
async def predictor(flow: Flow, *, models: Models | None = None, **limits: Any) -> AsyncIterator[Predictor]:
    """A flow behind its real application and edge, served by a real uvicorn."""
    async with LocalFlow(flow, models=models) as runner:
        runs = Runs(runner, [])
        app = build_predictor_app(name="m", signature=plan(flow).signature, runner=runs, limits=EdgeLimits(**limits))
        async with serving(app) as port:
            yield Predictor(port, runs.calls)


def assert_refused(reply: Reply, *statuses: int) -> None:
    """An answer that is the client's fault, and that says nothing about the inside of the server."""
    assert reply.status in statuses, (reply.head, reply.body[:500])
    assert_tells_nothing(reply)


def assert_tells_nothing(reply: Reply) -> None:
    text = reply.head + reply.body.decode("utf-8", "replace")
    assert not [leak for leak in LEAKS if leak in text], text[:2000]


def refused_flow(text: str, *, ms: float = 50) -> set[str]:
    """The codes of the errors for which a flow file is refused, cheaply; none when it is accepted."""
    assert_cheap(lambda: inspect_flow(text + "\n"), ms=ms, mib=None)
    return {finding.code for finding in errors_of(text)}


def errors_of(text: str) -> list[Finding]:
    findings = inspect_flow(text + "\n")[1]
    for finding in findings:
        assert "Traceback" not in str(finding) and str(finding).isprintable(), finding
    return [finding for finding in findings if finding.severity == "error"]


PLAIN = small_flow(
    """
    say:
      inputs: [{name: x, type: string}]
      outputs: [{name: y, type: string}]
      transform: {mode: declarative, spec: {op: io.format_response, args: {template: hi}}}
    """,
    ["_input.x -> say.x", "say.y -> _output"],
)
"""A flow that says hi to a text `x`."""
