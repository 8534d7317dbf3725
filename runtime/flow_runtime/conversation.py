"""The conversation of a run: which turns precede each prompt, and which of them its session keeps (IR.md, `memory`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from graphlib import TopologicalSorter
from itertools import chain
from typing import Literal

from agentflow.graph import Graph
from agentflow.ir import Flow, Node
from agentflow.plan import Plan
from agentflow.subflows import all_nodes
from flow_runtime.call import NodeCall
from runtime_core.sessions.records import SessionRecord

Memory = Literal["none", "run", "session"]


def keeps_sessions(nodes: Iterable[Node]) -> bool:
    """Whether a prompt of these nodes, or of their subflows, remembers earlier runs."""
    return any(_memory(node) == "session" for node in nodes)


class Memories:
    """What the nodes of a flow remember, worked out once."""

    def __init__(self, plan: Plan) -> None:
        memory = {name: _memory(plan.node(name)) for name in plan.graph.nodes}
        self.session = "session" in memory.values()
        self.kept = {name: _session_prompts(name, plan.node(name)) for name in plan.graph.nodes}
        sources = _sources(plan.graph)
        self.order = tuple(TopologicalSorter(sources).static_order())
        self.of = {name: (memory[name], _ancestors(name, sources)) for name in self.order if memory[name] != "none"}


class Conversation:
    """One run's. `earlier` are the session's turns; a run that is part of another one has what was said there before
    it in `outer`.
    """

    def __init__(
        self, memories: Memories, *, earlier: tuple[SessionRecord, ...] = (), outer: tuple[SessionRecord, ...] = ()
    ) -> None:
        self._memories = memories
        self._earlier = earlier
        self._outer = outer
        self._said: dict[str, tuple[SessionRecord, ...]] = {}

    @classmethod
    def inside(cls, memories: Memories, parent: NodeCall, *, run_id: str) -> Conversation:
        """Of the run `run_id`, which is the work of the call `parent`."""
        outer_run = parent.context.run_id
        earlier = tuple(record for record in parent.history if record.run_id != outer_run)
        outer = [record for record in parent.history if record.run_id == outer_run]
        renamed = tuple(record.model_copy(update={"run_id": run_id}) for record in outer)  # for the runs inside it
        return cls(memories, earlier=earlier, outer=renamed)

    def history(self, node: str) -> tuple[SessionRecord, ...]:
        """What precedes the node's prompt: of its ancestors' turns, those said in this run, in topological order."""
        memory, ancestors = self._memories.of.get(node, ("none", frozenset[str]()))
        if memory == "none":
            return ()
        here = (self._said.get(name, ()) for name in self._memories.order if name in ancestors)
        earlier = self._earlier if memory == "session" else ()
        return (*earlier, *self._outer, *chain.from_iterable(here))

    def add(self, node: str, records: tuple[SessionRecord, ...]) -> None:
        """The turns of a node that succeeded; a node that ran again has only the turns of its last run."""
        self._said[node] = records

    def said(self) -> tuple[SessionRecord, ...]:
        """All turns of this run, in topological order."""
        return tuple(record for _, record in self._turns())

    def to_keep(self) -> tuple[SessionRecord, ...]:
        """The turns for the session: those of prompts with `memory: session`."""
        kept = self._memories.kept
        return tuple(record for name, record in self._turns() if record.node is None or record.node in kept[name])

    def _turns(self) -> Iterator[tuple[str, SessionRecord]]:
        for name in self._memories.order:
            for record in self._said.get(name, ()):
                yield name, record


def _memory(node: Node) -> Memory:
    """What a node is given: its prompt's memory, or the longest one of the prompts in its subflow."""
    found = {inner.prompt.memory for inner in all_nodes([node]) if inner.prompt is not None}
    return "session" if "session" in found else "run" if "run" in found else "none"


def _session_prompts(name: str, node: Node) -> frozenset[str]:
    """The names, as records have them, of the prompts of a node that write to the session."""
    if isinstance(node.flow, Flow):
        return frozenset[str]().union(*(_session_prompts(inner, each) for inner, each in node.flow.nodes.items()))
    remembers = node.prompt is not None and node.prompt.memory == "session"
    return frozenset({name}) if remembers else frozenset()


def _sources(graph: Graph) -> dict[str, list[str]]:
    return {
        name: [wire.source for wire in graph.incoming.get(name, ()) if wire.source is not None] for name in graph.nodes
    }


def _ancestors(node: str, sources: Mapping[str, list[str]]) -> frozenset[str]:
    found: set[str] = set()
    pending = [*sources[node]]
    while pending:
        if (name := pending.pop()) not in found:
            found.add(name)
            pending += sources[name]
    return frozenset(found)
