"""No node may wait for itself: the cycles of a graph, one per knot of nodes, found without recursion."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from agentflow.checks.scope import Findings, Scope
from agentflow.findings import Finding
from agentflow.wiring import Wire

MAX_NAMED = 10


def check_cycles(scope: Scope) -> Findings:
    """One finding per knot, at the edge that closes the cycle it names."""
    wires = [wire for wire in scope.wires if wire.source is not None and wire.target is not None]
    closing = {(wire.source, wire.target): wire for wire in wires}
    for cycle in cycles(scope.flow.nodes, _targets(wires)):
        wire = closing[cycle[-1], cycle[0]]
        named = [*cycle[:MAX_NAMED], "..."] if len(cycle) > MAX_NAMED else cycle
        yield Finding(
            code="cycle",
            message=f"these nodes wait for each other: {' -> '.join([*named, cycle[0]])}",
            hint="a flow runs forwards only; remove one of these edges",
            path=("edges", wire.index),
        )


def cycles(nodes: Iterable[str], targets: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """One cycle out of every knot (strongly connected component) of a graph."""
    for knot in _Knots(targets).find(nodes):
        if len(knot) > 1 or knot[0] in targets.get(knot[0], ()):
            yield _cycle_in(set(knot), knot[-1], targets)


def _targets(wires: Iterable[Wire]) -> dict[str, list[str]]:
    targets: dict[str, list[str]] = {}
    for wire in wires:
        if wire.source is not None and wire.target is not None:
            targets.setdefault(wire.source, []).append(wire.target)
    return targets


def _cycle_in(knot: Collection[str], start: str, targets: Mapping[str, Sequence[str]]) -> list[str]:
    """Walk inside a knot until a node comes up again; every member has a way on."""
    seen: dict[str, int] = {}
    walk: list[str] = []
    node = start
    while node not in seen:
        seen[node] = len(walk)
        walk.append(node)
        node = next(target for target in targets[node] if target in knot)
    return walk[seen[node] :]


class _Knots:
    """Tarjan's algorithm with a stack of its own: a flow may be 10,000 nodes deep."""

    def __init__(self, targets: Mapping[str, Sequence[str]]) -> None:
        self.targets = targets
        self.number: dict[str, int] = {}
        self.low: dict[str, int] = {}
        self.open: list[str] = []
        self.is_open: set[str] = set()
        self.work: list[tuple[str, Iterator[str]]] = []

    def find(self, nodes: Iterable[str]) -> Iterator[list[str]]:
        for root in nodes:
            if root not in self.number:
                self._enter(root)
            while self.work:
                node, rest = self.work[-1]
                if not self._advance(node, rest):
                    self.work.pop()
                    if self.low[node] == self.number[node]:
                        yield self._close(node)
                    elif self.work:
                        parent = self.work[-1][0]
                        self.low[parent] = min(self.low[parent], self.low[node])

    def _enter(self, node: str) -> None:
        self.number[node] = self.low[node] = len(self.number)
        self.open.append(node)
        self.is_open.add(node)
        self.work.append((node, iter(self.targets.get(node, ()))))

    def _advance(self, node: str, rest: Iterator[str]) -> bool:
        """Whether there was a new node to enter."""
        for target in rest:
            if target not in self.number:
                self._enter(target)
                return True
            if target in self.is_open:
                self.low[node] = min(self.low[node], self.number[target])
        return False

    def _close(self, node: str) -> list[str]:
        knot: list[str] = []
        while not knot or knot[-1] != node:
            knot.append(self.open.pop())
            self.is_open.discard(knot[-1])
        return knot
