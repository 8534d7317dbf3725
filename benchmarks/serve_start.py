"""How long an application of nine deployments takes to start, against the one written by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks import flows
from benchmarks.cluster import cluster
from benchmarks.harness import Figure, median_ratio, paired, pairs_for, timed


def measure(short: bool) -> Iterator[Figure]:
    with cluster() as ray:
        from agentflow_serve import AppArgs, app
        from benchmarks import by_hand

        args = AppArgs(flow=flows.diamond("ours", flows.TRIVIAL), placement="per_node")

        def starting(make: Callable[[], object]) -> Callable[[], float]:
            start = timed(lambda: ray.deploy(app=make()))

            def run() -> float:
                took = start()
                ray.delete("app")
                return took

            return run

        ours, base = starting(lambda: app(args)), starting(lambda: by_hand.diamond("byhand", len(flows.BRANCHES)))
        results = paired(ours, base, pairs=2 if short else pairs_for(short))
        yield Figure("start", "start of 9 deployments / the same by hand", median_ratio(results), target=1.15)
        yield Figure("start.hand", "the same by hand", min(base for _, base in results), unit="s")
