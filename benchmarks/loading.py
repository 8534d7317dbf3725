"""Large flow files: loading, checking and planning them, and how the cost grows."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator

from agentflow import loads, plan
from benchmarks import flows
from benchmarks.harness import Figure, median_ratio, paired, pairs_for, timed


def measure(short: bool) -> Iterator[Figure]:
    load_nodes, plan_nodes = (500, 2_000) if short else (2_500, 10_000)
    pairs = pairs_for(short)
    half, whole = flows.wide_yaml(load_nodes // 2), flows.wide_yaml(load_nodes)
    yield from _growing("load", "load, check and plan", load_nodes, _loading(half), _loading(whole), pairs)
    half_flow, flow = flows.wide_flow(plan_nodes // 2), flows.wide_flow(plan_nodes)
    yield from _growing("plan", "plan()", plan_nodes, lambda: plan(half_flow), lambda: plan(flow), pairs)


def _loading(text: str) -> Callable[[], object]:
    return lambda: plan(loads(text).flow)


def _growing(
    name: str, what: str, nodes: int, half: Callable[[], object], whole: Callable[[], object], pairs: int
) -> Iterator[Figure]:
    def cost(work: Callable[[], object]) -> Callable[[], float]:
        """The better of two, each from a clean heap: what the collector has left to do is not this one's cost."""
        run = timed(work, clock=time.process_time)
        return lambda: min((gc.collect(), run())[1] for _ in range(2))

    results = paired(cost(whole), cost(half), pairs=pairs)
    yield Figure(f"{name}.time", f"{what} {nodes:,} nodes, CPU", min(full for full, _ in results), "s", target=1.0)
    yield Figure(f"{name}.growth", f"{what}: twice the nodes", median_ratio(results), target=2.2)
