"""The one run loop: the asyncio edge of `agentflow.schedule`.

It turns commands into tasks and what becomes of them into events. Every decision is the scheduler's; the loop
adds the clock, the deadline and cancellation. Whoever cancels the loop cancels every node that is running.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from itertools import islice
from typing import Protocol

from agentflow.failure import Failure
from agentflow.graph import Graph
from agentflow.schedule import (
    CancelNode,
    DeadlinePassed,
    EndRun,
    Event,
    NodeFailed,
    NodeLost,
    NodeRefused,
    NodeSucceeded,
    RunEnd,
    RunStarted,
    RunState,
    StartNode,
    initial,
    step,
)
from runtime_core.clock import Clock
from runtime_core.errors import DispatchRefusedError, NodeLostError
from runtime_core.outcome import NodeOutcome
from runtime_core.report import NO_USE, ModelUse, NodeReport, NodeStatus, RunError, RunReport

CANCEL_GRACE_S = 2.0
"""How long cancelled nodes may take to clean up before the run's answer goes out without them."""


Dispatch = Callable[[StartNode], Awaitable[NodeOutcome]]
"""Runs a node somewhere. Raises NodeLostError when the process that ran it died, DispatchRefusedError when it
was not taken on; failures of the node itself are values."""


class Observer(Protocol):
    """Told of every change of a node as it happens; must not block."""

    def __call__(self, node: str, status: NodeStatus | None, at_s: float) -> None:
        """`status` is None when the node starts; `at_s` counts from the start of the run."""
        ...


async def run_graph(
    graph: Graph,
    started: RunStarted,
    dispatch: Dispatch,
    *,
    clock: Clock,
    run_id: str,
    trace_id: str,
    deadline_s: float | None = None,
    observe: Observer | None = None,
) -> RunReport:
    """Run a graph to its end and report. `deadline_s` is what the run may take from now, None for no bound."""
    loop = _Loop(graph, dispatch, clock, observe)
    end = await loop.run(started, deadline_s)
    error = None
    if end.code is not None:
        error = RunError(
            code=end.code, message=end.message, node=end.node, retry_after=end.retry_after, refused=end.refused
        )
    nodes = loop.report()
    use = sum(loop.uses.values(), NO_USE)
    return RunReport(run_id=run_id, trace_id=trace_id, output=end.output, error=error, nodes=nodes, use=use)


class _Loop:
    def __init__(self, graph: Graph, dispatch: Dispatch, clock: Clock, observe: Observer | None) -> None:
        self.graph = graph
        self.dispatch = dispatch
        self.clock = clock
        self.observe = observe
        self.state: RunState = initial(graph)
        self.tasks: dict[str, asyncio.Task[Event]] = {}
        self.finished: deque[asyncio.Task[Event] | Event] = deque()
        self.waiter: asyncio.Future[None] | None = None
        self.began = clock.monotonic()
        self.times: dict[str, list[float]] = {}
        self.attempts: dict[str, int] = {}
        self.uses: dict[str, ModelUse] = {}

    async def run(self, started: RunStarted, deadline_s: float | None) -> RunEnd:
        timer = None
        if deadline_s is not None:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(max(deadline_s, 0), self._put, DeadlinePassed())
        try:
            event: Event = started
            while (end := self._apply(event)) is None:
                done = await self._next()
                event = done.result() if isinstance(done, asyncio.Task) else done
            return end
        finally:
            if timer is not None:
                timer.cancel()
            await self._stop()

    def _apply(self, event: Event) -> RunEnd | None:
        before = self.state.settled
        self.state, commands = step(self.state, event)
        self._tell(before)
        end = None
        for command in commands:
            match command:
                case StartNode():
                    self._start(command)
                case CancelNode():
                    self.tasks[command.node].cancel()
                case EndRun():
                    end = command.end
        return end

    def _start(self, command: StartNode) -> None:
        now = self._elapsed()
        self.times.setdefault(command.node, [now])
        task = asyncio.create_task(self._call(command))
        self.tasks[command.node] = task
        task.add_done_callback(self._done)
        if self.observe is not None:
            self.observe(command.node, None, now)

    def _done(self, task: asyncio.Task[Event]) -> None:
        if not task.cancelled():
            task.exception()  # seen, so that asyncio does not complain when the run ends before its turn
            self._put(task)

    def _put(self, done: asyncio.Task[Event] | Event) -> None:
        self.finished.append(done)
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def _next(self) -> asyncio.Task[Event] | Event:
        while not self.finished:
            self.waiter = asyncio.get_running_loop().create_future()
            await self.waiter
        return self.finished.popleft()

    async def _call(self, command: StartNode) -> Event:
        node = command.node
        try:
            outcome = await self.dispatch(command)
        except NodeLostError as exc:
            return NodeLost(node, str(exc))
        except DispatchRefusedError as exc:
            return NodeRefused(node, exc.code, str(exc), exc.retry_after)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            return NodeFailed(node, Failure("the call was cancelled from inside"))
        self.attempts[node] = self.attempts.get(node, 0) + outcome.attempts
        if outcome.use.calls:
            self.uses[node] = self.uses.get(node, NO_USE) + outcome.use
        if outcome.failure is not None:
            return NodeFailed(node, outcome.failure)
        return NodeSucceeded(node, outcome.outputs or {})

    def _tell(self, before: Mapping[str, str]) -> None:
        if len(self.state.settled) == len(before):
            return
        now = self._elapsed()
        for node, status in islice(self.state.settled.items(), len(before), None):
            if node in self.times:
                self.times[node].append(now)
            if self.observe is not None:
                self.observe(node, status, now)

    async def _stop(self) -> None:
        left = [task for task in self.tasks.values() if not task.done()]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=CANCEL_GRACE_S)

    def _elapsed(self) -> float:
        return self.clock.monotonic() - self.began

    def report(self) -> dict[str, NodeReport]:
        return {node: self._node_report(node) for node in self.graph.nodes}

    def _node_report(self, node: str) -> NodeReport:
        failure = self.state.failures.get(node)
        times = self.times.get(node, [])
        return NodeReport(
            status=self.state.settled.get(node, "cancelled"),
            attempts=self.attempts.get(node, 0),
            started_s=times[0] if times else None,
            finished_s=times[1] if len(times) > 1 else None,
            error=failure.payload(node) if failure else None,
            use=self.uses.get(node, NO_USE),
        )
