"""Graphs of operators against plain asyncio with the same timeouts and attempts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from statistics import median
from typing import Any

from agent_runtime import (
    ExecutionGraph,
    GraphEdge,
    GraphExecutor,
    GraphNode,
    OperatorContext,
    OperatorResult,
    OrchestrationConfig,
)
from benchmarks import flows, work
from benchmarks.harness import Figure, median_ratio, paired, pairs_for, timed
from llm_client.retry import RetryPolicy

ATTEMPTS = 2
INPUT = {"text": "x"}
CONFIG = OrchestrationConfig(max_parallel=len(flows.BRANCHES), timeout_seconds=flows.TIMEOUT_S)

Call = Callable[[], Awaitable[Any]]


def measure(short: bool) -> Iterator[Figure]:
    with asyncio.Runner() as runner:
        runs, pairs = 40 if short else 200, pairs_for(short)

        def repeated(call: Call) -> Callable[[], None]:
            async def repeat() -> None:
                for _ in range(runs):
                    await call()

            return lambda: runner.run(repeat())

        graph = repeated(_graph(work.WAIT_S))
        ratio = median_ratio(paired(timed(graph), timed(repeated(_plain(work.WAIT_S))), pairs=pairs))
        yield Figure("graph.diamond", "8 operators that wait 1 ms each / plain asyncio", ratio, target=1.3)
        rounds = [timed(repeated(_graph(0)), clock=time.process_time)() for _ in range(2 * pairs)]
        each = median(rounds) / runs / len(flows.DIAMOND)
        yield Figure("graph.node", "an operator of a graph that does nothing, CPU", each * 1e6, unit="µs")


def _graph(seconds: float) -> Call:
    async def waits(given: dict[str, Any], context: OperatorContext) -> OperatorResult:
        await asyncio.sleep(seconds)
        return OperatorResult(content="x")

    graph = ExecutionGraph()
    for name in flows.DIAMOND:
        graph.add_node(GraphNode(name, waits, retry=RetryPolicy(attempts=ATTEMPTS)))
    for branch in flows.BRANCHES:
        graph.add_edge(GraphEdge(flows.HEAD, branch))
        graph.add_edge(GraphEdge(branch, flows.TAIL))
    executor, context = GraphExecutor(graph), OperatorContext(config=CONFIG)

    async def run() -> None:
        results = await executor.execute(INPUT, context)
        assert results.success, results.error

    return run


def _plain(seconds: float) -> Call:
    """The diamond as one writes it by hand, with a timeout and attempts around each node."""

    async def node(given: Mapping[str, Any]) -> str:
        for attempt in range(ATTEMPTS):
            try:
                async with asyncio.timeout(flows.TIMEOUT_S):
                    await asyncio.sleep(seconds)
                    return given["text"]
            except TimeoutError:
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def run() -> None:
        head = await node(INPUT)
        async with asyncio.TaskGroup() as group:
            branches = [group.create_task(node({"text": head})) for _ in flows.BRANCHES]
        await node({"text": "\n\n".join(branch.result() for branch in branches)})

    return run
