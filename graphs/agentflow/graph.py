"""The graph that the scheduler runs: nodes with ports, joined by wires. Flows make one, and so can other programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agentflow.types import PortType
from agentflow.wiring import Wire


@dataclass(frozen=True, slots=True)
class InputPort:
    name: str
    type: PortType | None = None
    optional: bool = False


@dataclass(frozen=True, slots=True)
class GraphNode:
    """`repeatable`: the node may be dispatched again after the process that ran it died.

    With `any_input` one input that is fed is enough to run it, whichever; a flow's nodes never have that.
    """

    id: str
    inputs: tuple[InputPort, ...] = ()
    repeatable: bool = True
    any_input: bool = False


@dataclass(frozen=True, slots=True)
class Graph:
    """`wires` in the order of the flow's edge list; `incoming` and `outgoing` are derived from them.

    `outgoing[None]` are the wires that leave the request, `incoming[None]` those that make the answer.
    """

    nodes: Mapping[str, GraphNode]
    wires: tuple[Wire, ...]
    incoming: Mapping[str | None, tuple[Wire, ...]] = field(init=False)
    outgoing: Mapping[str | None, tuple[Wire, ...]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "incoming", _grouped(self.wires, by_target=True))
        object.__setattr__(self, "outgoing", _grouped(self.wires, by_target=False))

    def handles_failure(self, node: str) -> bool:
        """Whether something in the graph takes the node's failure as a value."""
        return any(wire.from_error for wire in self.outgoing.get(node, ()))


def _grouped(wires: Iterable[Wire], *, by_target: bool) -> dict[str | None, tuple[Wire, ...]]:
    groups: dict[str | None, list[Wire]] = {}
    for wire in wires:
        groups.setdefault(wire.target if by_target else wire.source, []).append(wire)
    return {end: tuple(group) for end, group in groups.items()}
