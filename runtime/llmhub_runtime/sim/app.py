"""The ASGI application: reads a request, decides, records, answers, and completes the record.

Nothing here needs a particular server; only the faults that break a connection need the transport that
`server` offers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from llmhub_runtime.sim.channel import Channel, ClientGone, Receive, Scope, Send
from llmhub_runtime.sim.control_api import answer_control
from llmhub_runtime.sim.delivery import deliver
from llmhub_runtime.sim.director import Director
from llmhub_runtime.sim.errors import SimBadRequest
from llmhub_runtime.sim.exchange import HttpRequest, decide
from llmhub_runtime.sim.log import Record, RequestLog
from llmhub_runtime.sim.payload import Stamp
from llmhub_runtime.sim.plan import Plan
from llmhub_runtime.sim.script import Script

MARK = ("x-agentflow-sim", "1")


class SimApp:
    """One simulated model: its script, its counters and its log. Belongs to one event loop."""

    def __init__(
        self, *, script: Script, log: RequestLog, clock: Callable[[], float] = time.time, read_only: bool = False
    ) -> None:
        self.director = Director(script)
        self.log = log
        self.stopping = False
        self._clock = clock
        self._read_only = read_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            async with Channel(scope, receive, send) as channel:
                await self._http(scope, channel)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                self.log.close()
                return

    async def _http(self, scope: Scope, channel: Channel) -> None:
        try:
            body, too_long = await channel.read(), None
        except ClientGone:
            return
        except SimBadRequest as exc:
            body, too_long = b"", exc
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        request = HttpRequest(scope["method"], scope["path"], headers, body)
        if request.path.startswith("/sim/"):
            query = scope.get("query_string", b"").decode("latin-1")
            plan = answer_control(request, query, self.director, self.log, read_only=self._read_only)
            await channel.start(plan.status, (MARK, ("content-type", plan.payload.content_type)))
            await channel.write(plan.payload.frames[0].data, more=False)
        else:
            await self._model(request, channel, too_long)

    async def _model(self, request: HttpRequest, channel: Channel, too_long: SimBadRequest | None) -> None:
        stamp = Stamp(seq=self.log.next_seq(), time=self._clock())
        received, plan = decide(request, self.director, stamp, refused=too_long)
        record = self.log.open(received)
        started = time.perf_counter()
        headers = (MARK, ("x-agentflow-sim-seq", str(stamp.seq)), ("x-request-id", f"sim-{stamp.seq}"))
        try:
            await self._answer(plan, channel, record, headers)
        finally:
            self.log.finish(record, duration_ms=(time.perf_counter() - started) * 1000)

    async def _answer(self, plan: Plan, channel: Channel, record: Record, headers: tuple[tuple[str, str], ...]) -> None:
        progress = record.progress
        try:
            await deliver(plan, channel, progress, headers)
        except asyncio.CancelledError:
            progress.outcome = "server_stopped"
            raise
        except ConnectionAbortedError:
            progress.outcome = "aborted"
            raise
        finally:
            if progress.outcome == "open":
                progress.outcome = "failed"
            if progress.outcome == "client_disconnected" and self.stopping:
                progress.outcome = "server_stopped"


def create_app(
    script: Script | None = None,
    log_path: str | Path | None = None,
    *,
    clock: Callable[[], float] = time.time,
    read_only: bool = False,
) -> SimApp:
    """The simulated model as an ASGI application, with its own script and log."""
    return SimApp(script=script or Script(), log=RequestLog(path=log_path), clock=clock, read_only=read_only)
