"""Predictors for tests: a runner made of one async function, and a real uvicorn in the test's own loop."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from agentflow.signature import FlowField, Signature
from agentflow.types import PortType
from agentflow_serve.call import CallMeta
from runtime_core.report import RunError, RunReport

Answer = Callable[[dict[str, Any], CallMeta], Awaitable[Any]]

SHOUT = Signature(
    inputs=(FlowField("text", PortType.STRING), FlowField("n", PortType.NUMBER, required=False)),
    outputs=(
        FlowField("loud", PortType.STRING),
        FlowField("double", PortType.NUMBER),
        FlowField("seen", PortType.OBJECT),
    ),
)


async def shout(request: dict[str, Any], call: CallMeta) -> dict[str, Any]:
    """What the flow SHOUT does."""
    n = request.get("n", 0.0)
    return {"loud": request["text"].upper(), "double": 2.0 * n, "seen": {"text": request["text"], "n": n}}


@dataclass
class Runner:
    """Runs `answer` as the flow and remembers what it was asked; a RunError from it is the run's error."""

    answer: Answer = shout
    calls: list[tuple[dict[str, Any], CallMeta]] = field(default_factory=list)

    async def run(self, request: dict[str, Any], call: CallMeta) -> RunReport:
        self.calls.append((request, call))
        outcome = await self.answer(request, call)
        trace = call.trace_id or "none"
        if isinstance(outcome, RunError):
            return RunReport(run_id=trace, trace_id=trace, error=outcome)
        return RunReport(run_id=trace, trace_id=trace, output=outcome)


class Stall:
    """A flow that never answers; `cancelled` is set when a run of it has been cancelled."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.cancels = 0

    async def __call__(self, request: dict[str, Any], call: CallMeta) -> Any:
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancels += 1
            self.cancelled.set()
            raise


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[int]:
    """The port on loopback where `app` is served until the block ends."""
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", ws="none")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            while not server.started:
                await asyncio.sleep(0.005)
                assert not task.done(), task
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task


@contextmanager
def serving_in_thread(app: Any) -> Iterator[int]:
    """As `serving`, for tests without an event loop of their own."""
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", ws="none")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            give_up = time.monotonic() + 20
            while not server.started:
                assert thread.is_alive() and time.monotonic() < give_up
                time.sleep(0.005)
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()
