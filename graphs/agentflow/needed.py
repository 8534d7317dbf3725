"""Which nodes a run needs: everything else is never started (IR.md Q39)."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from agentflow.wiring import Wire


def needed_nodes(wires: Iterable[Wire], acting: Collection[str]) -> frozenset[str]:
    """The ancestors of the answer and of every acting node, and the handlers of their failures."""
    sources: dict[str | None, list[str]] = {}
    handlers: dict[str, list[str]] = {}
    for wire in wires:
        if wire.source is None:
            continue
        sources.setdefault(wire.target, []).append(wire.source)
        if wire.from_error and wire.target is not None:
            handlers.setdefault(wire.source, []).append(wire.target)
    needed: set[str] = set()
    pending = [*sources.get(None, ()), *acting]
    while pending:
        node = pending.pop()
        if node not in needed:
            needed.add(node)
            pending += sources.get(node, ())
            pending += handlers.get(node, ())
    return frozenset(needed)
