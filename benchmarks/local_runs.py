"""Runs in one process: the scheduler and the loop against plain asyncio, and against the critical path."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import pairwise
from statistics import median
from typing import Any

from agentflow import from_mapping, plan
from agentflow.schedule import RunStarted, StartNode
from benchmarks import flows, work
from benchmarks.harness import Figure, median_ratio, paired, pairs_for, timed
from flow_runtime import LocalFlow
from flow_runtime.runner import FlowRunner
from runtime_core.clock import SystemClock
from runtime_core.loop import run_graph
from runtime_core.outcome import NodeOutcome

REQUEST = {"x": {"k": 1}}
ATTEMPTS = 1
SLOW_S, CHAINS = 0.3, 6

Call = Callable[[], Awaitable[Any]]


def measure(short: bool) -> Iterator[Figure]:
    with asyncio.Runner() as runner:
        runs, pairs = 40 if short else 200, pairs_for(short)

        def repeated(call: Call) -> Callable[[], None]:
            async def repeat() -> None:
                for _ in range(runs):
                    await call()

            return lambda: runner.run(repeat())

        repeats = 1 if short else 3
        yield runner.run(_asymmetric(repeats))
        yield runner.run(_chains(repeats))
        waits = runner.run(_opened(flows.diamond("waits", flows.WAITS)))
        ratio = median_ratio(paired(timed(repeated(_run(waits))), timed(repeated(_plain(work.wait))), pairs=pairs))
        yield Figure("loop.diamond", "8 nodes that wait 1 ms each / plain asyncio", ratio, target=1.3)
        yield _per_node("loop.node", "scheduler and loop, a node", repeated(_bare_loop()), runs, pairs, target=60.0)
        trivial = runner.run(_opened(flows.diamond("trivial", flows.TRIVIAL)))
        yield _per_node("body.node", "the same with node bodies", repeated(_run(trivial)), runs, pairs, target=None)


async def _opened(document: Mapping[str, Any]) -> FlowRunner:
    """A runner of nodes that hold nothing open."""
    return await LocalFlow(from_mapping(document).flow).__aenter__()


def _run(runner: FlowRunner) -> Call:
    async def run() -> None:
        report = await runner.run(REQUEST, deadline_s=60)
        assert report.error is None, report.error

    return run


def _plain(body: Callable[..., Awaitable[Mapping[str, Any]]]) -> Call:
    """The diamond as one writes it by hand, with a deadline, and with a timeout and attempts around each node."""

    async def node(inputs: dict[str, Any]) -> Any:
        for attempt in range(ATTEMPTS):
            try:
                async with asyncio.timeout(flows.TIMEOUT_S):
                    return (await body(inputs, None, None))["out"]
            except TimeoutError:
                if attempt == ATTEMPTS - 1:
                    raise
        return None

    async def run() -> None:
        async with asyncio.timeout(60):
            head = await node(REQUEST)
            async with asyncio.TaskGroup() as group:
                branches = {name: group.create_task(node({"x": head})) for name in flows.BRANCHES}
            first, *rest = flows.BRANCHES
            await node({"x": branches[first].result()} | {name: branches[name].result() for name in rest})

    return run


def _bare_loop() -> Call:
    graph = plan(from_mapping(flows.diamond("bare", flows.TRIVIAL)).flow).graph
    started = RunStarted(request=REQUEST, fields=REQUEST)
    outcome, clock = NodeOutcome(outputs={"out": {}}), SystemClock()

    async def dispatch(_: StartNode) -> NodeOutcome:
        return outcome

    async def run() -> None:
        report = await run_graph(graph, started, dispatch, clock=clock, run_id="r", trace_id="t", deadline_s=60)
        assert report.error is None, report.error

    return run


def _per_node(name: str, what: str, work: Callable[[], None], runs: int, pairs: int, *, target: float | None) -> Figure:
    """CPU time a node of the diamond, the median of some rounds."""
    rounds = [timed(work, clock=time.process_time)() for _ in range(2 * pairs)]
    per_node = median(rounds) / runs / len(flows.DIAMOND)
    return Figure(name, f"{what}, CPU", per_node * 1e6, unit="µs", target=target)


async def _asymmetric(repeats: int) -> Figure:
    """Whoever waits for a level takes the 0.4 s of `d` on top."""
    seconds = {"a": 0.0, "b": 1.0, "c": 0.4, "d": 0.4, "e": 0.0}
    edges = [("a", "b"), ("a", "c"), ("c", "d"), ("b", "e"), ("d", "e")]
    wall = await _wall("asymmetric", seconds, edges, repeats=repeats)
    return Figure("loop.asymmetric", "a -> (b 1.0 s, c 0.4 s -> d 0.4 s) -> e", wall, unit="s", target=1.03)


async def _chains(repeats: int) -> Figure:
    """Six chains of six, each with its slow node at another depth."""
    names = [[f"c{chain}n{depth}" for depth in range(CHAINS)] for chain in range(CHAINS)]
    seconds = {name: SLOW_S * (depth == row) for row, chain in enumerate(names) for depth, name in enumerate(chain)}
    edges = [pair for chain in names for pair in pairwise(chain)]
    wall = await _wall("chains", seconds, edges, repeats=repeats)
    return Figure("loop.chains", "six chains of six / the critical path of 0.3 s", wall / SLOW_S, target=1.05)


async def _wall(name: str, seconds: Mapping[str, float], edges: list[tuple[str, str]], *, repeats: int) -> float:
    async with LocalFlow(flows.waiting(name, seconds, edges)) as runner:
        walls: list[float] = []
        for _ in range(repeats):
            began = time.perf_counter()
            report = await runner.run(seconds)
            walls.append(time.perf_counter() - began)
            assert report.error is None, report.error
    return median(walls)
