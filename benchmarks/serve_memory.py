"""What a replica of a simple node holds in memory and imports, against an empty deployment."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.cluster import cluster
from benchmarks.harness import Figure

HEAVY = frozenset({"any_llm", "mellea", "kserve", "duckdb"})
OPERATIONS = {
    "io": ("io.format_response", {"template": {"v": "${x}"}}),
    "transform": ("transform.map", {"input": "${x.items}", "expression": "item"}),
    "http": ("http.get", {"url": "http://127.0.0.1:1/"}),  # nobody listens there; the client is made all the same
}


def measure(short: bool) -> Iterator[Figure]:
    with cluster() as ray:
        from benchmarks import by_hand, watched

        ray.deploy(empty=by_hand.empty(), **{name: watched.node(name, *spec) for name, spec in OPERATIONS.items()})
        base, _ = ray.ask("empty", "process")
        for name, (op, _) in OPERATIONS.items():
            size, modules = ray.ask(name, "process_after", {"x": {"items": [1]}})
            above = (size - base) / 1e6
            heavy = HEAVY.intersection(modules)
            yield Figure(f"memory.{name}", f"{op}: memory above an empty deployment's", above, unit="MB", target=40)
            yield Figure(f"imports.{name}", f"{op}: heavy libraries imported", len(heavy), unit="", target=0)
