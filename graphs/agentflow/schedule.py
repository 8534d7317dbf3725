"""The scheduler: a pure reducer that decides what runs, what is skipped and how a run ends.

`step(state, event) -> (state, commands)` with no clock, no I/O and no randomness, so that live runs, resumed
runs and tests share it. A node starts as soon as every wire into it is settled, live or dead: there are no
levels and no barriers (IR.md Q10 to Q12, Q18 to Q20, Q39).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, assert_never

from agentflow.errors import CastError, ExpressionFailed
from agentflow.failure import Failure, Refused
from agentflow.graph import Graph, GraphNode
from agentflow.types import cast
from agentflow.wiring import Wire

MAX_DISPATCHES = 3
"""Once, and at most twice again after the process that ran the node died."""

Settled = Literal["succeeded", "failed", "skipped", "cancelled"]
Refusal = Literal["overloaded", "unavailable"]
EndCode = (
    Literal[
        "node_failed",
        "node_lost",
        "rate_limited",
        "budget_exceeded",
        "policy_denied",
        "condition_failed",
        "no_output",
        "bad_output",
        "deadline_exceeded",
    ]
    | Refusal
)


@dataclass(frozen=True, slots=True)
class RunStarted:
    """`fields` is the request with its defaults, `trace_id` and `event_time`; `_input` alone carries `request`."""

    request: Mapping[str, Any]
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NodeSucceeded:
    node: str
    outputs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NodeFailed:
    node: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class NodeLost:
    """The process that ran the node died; whether it did its work is not known."""

    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class NodeRefused:
    """The node was not taken on: its queue is full, or it is not there. The run ends; its caller may try again."""

    node: str
    code: Refusal
    reason: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    pass


Event = RunStarted | NodeSucceeded | NodeFailed | NodeLost | NodeRefused | DeadlinePassed


@dataclass(frozen=True, slots=True)
class StartNode:
    node: str
    inputs: Mapping[str, Any]
    dispatch: int


@dataclass(frozen=True, slots=True)
class CancelNode:
    node: str


@dataclass(frozen=True, slots=True)
class RunEnd:
    """`output` counts only when `code` is None."""

    output: Any = None
    code: EndCode | None = None
    message: str = ""
    node: str | None = None
    retry_after: float | None = None
    refused: Refused | None = None


@dataclass(frozen=True, slots=True)
class EndRun:
    end: RunEnd


Command = StartNode | CancelNode | EndRun


@dataclass(slots=True)  # not frozen: every event makes one, and a frozen one takes three times as long to make
class RunState:
    """Everything the scheduler knows about a run. Nobody changes one: `step` makes the next.

    `unsettled` counts, per node not yet started, the wires into it that are still open. `carried` holds the
    values of live wires whose target is not settled yet, by wire index. `running` counts a node's dispatches.
    """

    graph: Graph
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])
    unsettled: Mapping[str, int] = field(default_factory=dict[str, int])
    carried: Mapping[int, Any] = field(default_factory=dict[int, Any])
    running: Mapping[str, int] = field(default_factory=dict[str, int])
    settled: Mapping[str, Settled] = field(default_factory=dict[str, Settled])
    failures: Mapping[str, Failure] = field(default_factory=dict[str, Failure])
    end: RunEnd | None = None


def initial(graph: Graph) -> RunState:
    """A run of `graph` before its first event."""
    return RunState(graph, {}, {}, {}, {}, {}, {})


def step(state: RunState, event: Event) -> tuple[RunState, list[Command]]:
    """The next state and what to do now. After the run has ended nothing changes any more."""
    if state.end is not None:
        return state, []
    draft = _Draft(state)
    match event:
        case RunStarted():
            draft.start(event)
        case NodeSucceeded():
            draft.succeed(event.node, event.outputs)
        case NodeFailed():
            draft.fail(event.node, event.failure)
        case NodeLost():
            draft.lose(event.node, event.reason)
        case NodeRefused():
            message = f"node '{event.node}' was not taken on: {event.reason}"
            draft.finish(RunEnd(code=event.code, message=message, node=event.node, retry_after=event.retry_after))
        case DeadlinePassed():
            draft.finish(RunEnd(code="deadline_exceeded", message=draft.overdue()))
        case _:
            assert_never(event)
    return draft.result()


class _Draft:
    """The next state while one event is worked in; its mappings are copies, so the old state stays as it was."""

    def __init__(self, state: RunState) -> None:
        self.state = state
        self.graph = state.graph
        self.fields = state.fields
        self.unsettled = dict(state.unsettled)
        self.carried = dict(state.carried)
        self.running = dict(state.running)
        self.settled = dict(state.settled)
        self.failures = dict(state.failures)
        self.end: RunEnd | None = None
        self.commands: list[Command] = []
        self.ready: deque[str] = deque()

    def result(self) -> tuple[RunState, list[Command]]:
        self._settle_ready()
        if self.end is None and len(self.settled) == len(self.graph.nodes):
            self.finish(self._answer())
        state = RunState(
            graph=self.graph,
            fields=self.fields,
            unsettled=self.unsettled,
            carried=self.carried,
            running=self.running,
            settled=self.settled,
            failures=self.failures,
            end=self.end,
        )
        return state, self.commands

    def start(self, event: RunStarted) -> None:
        self.fields = event.fields
        incoming = self.graph.incoming
        self.unsettled = {node: len(incoming.get(node, ())) for node in self.graph.nodes}
        self.ready.extend(node for node, count in self.unsettled.items() if count == 0)
        for wire in self.graph.outgoing.get(None, ()):
            if wire.source_port is None:
                self._settle_wire(wire, live=True, value=dict(event.request))
            elif wire.source_port in event.fields:
                self._settle_wire(wire, live=True, value=event.fields[wire.source_port])
            else:
                self._settle_wire(wire, live=False)

    def succeed(self, node: str, outputs: Mapping[str, Any]) -> None:
        if not self._settle_node(node, "succeeded"):
            return
        for wire in self.graph.outgoing.get(node, ()):
            value = None if wire.from_error else outputs.get(wire.source_port or "")
            self._settle_wire(wire, live=not wire.from_error, value=value)

    def fail(self, node: str, failure: Failure, code: EndCode = "node_failed") -> None:
        if not self._settle_node(node, "failed"):
            return
        self.failures[node] = failure
        if not self.graph.handles_failure(node):
            self.finish(_ended(node, failure, code))
            return
        for wire in self.graph.outgoing[node]:
            self._settle_wire(wire, live=wire.from_error, value=failure.payload(node))

    def lose(self, node: str, reason: str) -> None:
        dispatches = self.running.get(node, 0)
        if not dispatches:
            return
        if self.graph.nodes[node].repeatable and dispatches < MAX_DISPATCHES:
            self._dispatch(node)
            return
        self.fail(node, Failure(reason=reason, attempts=dispatches), code="node_lost")

    def finish(self, end: RunEnd) -> None:
        if self.end is not None:
            return
        self.end = end
        self.commands = [command for command in self.commands if not isinstance(command, StartNode)]
        self.commands += [CancelNode(node) for node in self.running if node in self.state.running]
        for node in self.graph.nodes:
            self.settled.setdefault(node, "cancelled")
        self.commands.append(EndRun(end))

    def overdue(self) -> str:
        waiting = ", ".join(f"'{node}'" for node in self.running) or "none"
        return f"the deadline passed while these nodes were running: {waiting}"

    def _settle_node(self, node: str, status: Settled) -> bool:
        """Take a running node out of play; False for a late or doubled report of one that is not running."""
        if self.running.pop(node, None) is None:
            return False
        self._close(node, status)
        return True

    def _close(self, node: str, status: Settled) -> None:
        self.settled[node] = status
        for wire in self.graph.incoming.get(node, ()):
            self.carried.pop(wire.index, None)

    def _settle_wire(self, wire: Wire, *, live: bool, value: Any = None) -> None:
        if live and wire.condition is not None and self.end is None:
            live = self._holds(wire, value)
        if live:
            self.carried[wire.index] = value
        if wire.target is not None:
            left = self.unsettled[wire.target] - 1
            self.unsettled[wire.target] = left
            if left == 0:
                self.ready.append(wire.target)

    def _holds(self, wire: Wire, value: Any) -> bool:
        assert wire.condition is not None
        names = {wire.value_name: value, "value": value, "context": self.fields}
        try:
            return bool(wire.condition.evaluate(names))
        except ExpressionFailed as exc:
            where = f"edges[{wire.index}] from '{wire.source or '_input'}' to '{wire.target or '_output'}'"
            self.finish(RunEnd(code="condition_failed", message=f"the condition of {where} failed: {exc}"))
            return False

    def _settle_ready(self) -> None:
        """Start, skip or fail every node whose wires are all settled, and whatever that settles in turn."""
        while self.ready and self.end is None:
            node = self.ready.popleft()
            self.unsettled.pop(node, None)
            if self._is_starved(self.graph.nodes[node]):
                self._close(node, "skipped")
                for wire in self.graph.outgoing.get(node, ()):
                    self._settle_wire(wire, live=False)
            else:
                self._dispatch(node)

    def _is_starved(self, node: GraphNode) -> bool:
        fed = {wire.target_port for wire in self.graph.incoming.get(node.id, ()) if wire.index in self.carried}
        if node.any_input and node.inputs:
            return not fed
        return any(not port.optional and port.name not in fed for port in node.inputs)

    def _dispatch(self, node: str) -> None:
        dispatch = self.running.get(node, 0) + 1
        self.running[node] = dispatch
        try:
            inputs = self._inputs(self.graph.nodes[node])
        except CastError as exc:
            self.fail(node, Failure(reason=str(exc)))
            return
        self.commands.append(StartNode(node=node, inputs=inputs, dispatch=dispatch))

    def _inputs(self, node: GraphNode) -> dict[str, Any]:
        inputs: dict[str, Any] = {port.name: None for port in node.inputs}
        filled: set[str] = set()
        for wire in self.graph.incoming.get(node.id, ()):
            port = wire.target_port
            if port is None or wire.index not in self.carried:
                continue
            if port in filled:
                raise CastError(f"two edges carry a value into '{node.id}.{port}' at once; only one may")
            filled.add(port)
            inputs[port] = cast(self.carried[wire.index], wire.source_type, wire.target_type)
        return inputs

    def _answer(self) -> RunEnd:
        wires = self.graph.incoming.get(None, ())
        live = [wire for wire in wires if wire.index in self.carried]
        if not live:
            return self._nothing()
        if live[0].target_port is None:
            return RunEnd(output=self.carried[live[0].index])
        answer: dict[str, Any] = {}
        try:
            for wire in live:
                if (name := wire.target_port or "") not in answer:
                    answer[name] = cast(self.carried[wire.index], wire.source_type, wire.target_type)
        except CastError as exc:
            return RunEnd(code="bad_output", message=f"an edge into _output carries a value that does not fit: {exc}")
        return RunEnd(output=answer)

    def _nothing(self) -> RunEnd:
        message = "no edge into _output carried a value"
        for node, failure in self.failures.items():
            return RunEnd(code="no_output", message=f"{message}; node '{node}' failed: {failure.reason}", node=node)
        return RunEnd(code="no_output", message=message)


def _ended(node: str, failure: Failure, code: EndCode) -> RunEnd:
    """How a run ends by a failure that nothing handles."""
    if failure.kind == "budget_exceeded" or failure.kind == "policy_denied" or failure.kind == "unavailable":
        code = failure.kind
    elif failure.retry_after is not None:
        code = "rate_limited"
    message = f"node '{node}' failed: {failure.reason}"
    return RunEnd(code=code, message=message, node=node, retry_after=failure.retry_after, refused=failure.refused)
