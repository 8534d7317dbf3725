"""The diamond with a deployment per node against the same composition written by hand in Ray Serve."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import flows
from benchmarks.cluster import cluster, compare
from benchmarks.harness import Figure, pairs_for

CONNECTIONS = 16


def measure(short: bool) -> Iterator[Figure]:
    with cluster() as ray:
        from agentflow_serve import AppArgs, app
        from benchmarks import by_hand

        args = AppArgs(flow=flows.diamond("ours", flows.TRIVIAL), placement="per_node")
        ray.deploy(ours=app(args), byhand=by_hand.diamond("byhand", len(flows.BRANCHES)))
        body = flows.request_body({"x": {"k": 1}})
        compared = compare(
            ray,
            ray.target("ours", "/v1/models/ours:predict", body),
            ray.target("byhand", "/", body),
            requests=150 if short else 250,
            connections=CONNECTIONS,
            pairs=pairs_for(short),
        )
        what = "8 nodes, a deployment each / the same by hand"
        yield Figure("per_node.rate", f"{what}: requests/s", compared.rate, bound="at least", target=0.9)
        yield Figure("per_node.cpu", f"{what}: CPU a request", compared.cpu, target=1.15)
        yield Figure("per_node.hand", "the same by hand", compared.baseline_rate, unit="requests/s")
