"""A flow inside the predictor, behind HAProxy, against kserve's bare endpoints over a model that does nothing."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import flows
from benchmarks.cluster import Compared, cluster, compare
from benchmarks.harness import Figure, pairs_for

CONNECTIONS = 16


def measure(short: bool) -> Iterator[Figure]:
    requests, pairs = 500 if short else 3_000, pairs_for(short)
    with cluster(haproxy=True) as ray:
        from agentflow_serve import AppArgs, app
        from benchmarks import by_hand

        single = app(AppArgs(flow=flows.single("single"), placement="inline"))
        diamond = app(AppArgs(flow=flows.diamond("diamond", flows.TRIVIAL), placement="inline"))
        ray.deploy(single=single, diamond=diamond, bare=by_hand.bare_predictor())
        body = flows.request_body({"x": {"k": 1}})
        bare = ray.target("bare", "/v1/models/bare:predict", body)

        def compared(name: str) -> Compared:
            ours = ray.target(name, f"/v1/models/{name}:predict", body)
            return compare(ray, ours, bare, requests=requests, connections=CONNECTIONS, pairs=pairs)

        one, eight = compared("single"), compared("diamond")
        what = "inline / bare predictor with an empty model"
        yield Figure("inline.rate", f"1 node {what}: requests/s", one.rate, bound="at least", target=0.85)
        yield Figure("inline.cpu", f"1 node {what}: CPU a request", one.cpu)
        yield Figure("inline.rate8", f"8 nodes {what}: requests/s", eight.rate)
        yield Figure("inline.bare", "bare predictor with an empty model", one.baseline_rate, unit="requests/s")
