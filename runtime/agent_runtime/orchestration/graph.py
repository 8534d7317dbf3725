"""Operators as a graph: nodes joined by edges, turned into the graph that agentflow's scheduler runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal

from agent_runtime.errors import GraphInvalid
from agent_runtime.orchestration.operators import Operator, Runnable, as_operator
from agent_runtime.orchestration.results import OperatorResult
from agentflow import graph as scheduled
from agentflow.errors import ExpressionError, ExpressionFailed
from agentflow.expressions import Expression, compile_expression
from agentflow.wiring import Wire
from llm_client.retry import NO_RETRY, RetryPolicy

On = Literal["success", "failure", "always"]
EdgeCondition = Callable[[OperatorResult], bool] | str
NAMES = frozenset({"content", "data", "context"})
"""What a condition that is an expression may use; `context` are the fields of the graph's input."""
RESULT, ERROR = "result", "error"


@dataclass(frozen=True, slots=True)
class GraphNode:
    """An operator of a graph (source: agent-runtime, Graph Execution). An agent or an async function becomes one.

    A failed try is repeated as `retry` says; what a budget or a policy refused is not. `timeout_s` bounds each try,
    instead of the configuration's timeout. A node with several edges into it runs when all of them carry something
    (`join="all"`), or when one does (`any`).
    """

    id: str
    operator: Runnable
    retry: RetryPolicy = NO_RETRY
    timeout_s: float | None = None
    join: Literal["all", "any"] = "all"


@dataclass(frozen=True, slots=True)
class GraphEdge:
    """Carries the result of `source` to `target`: when it succeeded, `on` its failure, or always.

    A `condition` is a function of the result, or an expression of agentflow over `content` and `data`. It is not
    asked about failures.
    """

    source: str
    target: str
    condition: EdgeCondition | None = None
    on: On = "success"


@dataclass(slots=True)
class ExecutionGraph:
    """Nodes and edges, in any order. What does not fit together is said when it is compiled."""

    nodes: dict[str, GraphNode] = field(default_factory=dict[str, GraphNode])
    edges: list[GraphEdge] = field(default_factory=list[GraphEdge])

    def add_node(self, node: GraphNode) -> None:
        """Raises GraphInvalid for a second node of the same id."""
        if node.id in self.nodes:
            raise GraphInvalid(f"The graph has a node '{node.id}' already.")
        self.nodes[node.id] = node

    def add_edge(self, edge: GraphEdge) -> None:
        self.edges.append(edge)

    def problems(self) -> tuple[str, ...]:
        """Every reason why the graph cannot run, a sentence each."""
        found = [] if self.nodes else ["The graph has no nodes."]
        seen: set[tuple[str, str, str]] = set()
        for edge in self.edges:
            where = f"the edge from '{edge.source}' to '{edge.target}'"
            found += [
                f"There is no node '{end}' for {where}." for end in (edge.source, edge.target) if end not in self.nodes
            ]
            for kind in ("success", "failure") if edge.on == "always" else (edge.on,):
                if (edge.source, edge.target, kind) in seen:
                    found.append(f"Two edges carry the {kind} of '{edge.source}' to '{edge.target}'.")
                seen.add((edge.source, edge.target, kind))
            if isinstance(edge.condition, str):
                try:
                    compile_expression(edge.condition, NAMES)
                except ExpressionError as exc:
                    found.append(f"The condition of {where} is wrong: {exc}.")
            if edge.condition is not None and edge.on != "success":
                found.append(f"A condition is about a success, and {where} carries a failure.")
        return (*found, *self._cycle())

    def sinks(self) -> tuple[str, ...]:
        """The nodes that nothing follows."""
        sources = {edge.source for edge in self.edges}
        return tuple(node for node in self.nodes if node not in sources)

    def operators(self) -> dict[str, Operator]:
        """Raises OrchestrationError for a node that is no operator, no agent and no async function."""
        return {node.id: as_operator(node.operator, node.id) for node in self.nodes.values()}

    def compiled(self, *, stop_on_failure: bool = False) -> scheduled.Graph:
        """The graph for the scheduler. Each input port of a node is named for the node that feeds it.

        With `stop_on_failure` a failure that no edge takes ends the run. Raises GraphInvalid.
        """
        if problems := self.problems():
            raise GraphInvalid(f"The graph cannot run: {' '.join(problems)}", problems=problems)
        wires: list[Wire] = []
        feeding: dict[str, dict[str, scheduled.InputPort]] = {name: {} for name in self.nodes}
        for edge in self.edges:
            port = scheduled.InputPort(edge.source, optional=self.nodes[edge.target].join == "any")
            feeding[edge.target][edge.source] = port
            if edge.on != "failure":
                wires.append(_wire(len(wires), edge, condition=_condition(edge)))
            if edge.on != "success":
                wires.append(_wire(len(wires), edge, from_error=True))
        for name in self.nodes:  # all that became of the run is its answer
            wires.append(Wire(len(wires), name, RESULT, None, name))
            if not stop_on_failure:
                wires.append(Wire(len(wires), name, ERROR, None, name, from_error=True))
        nodes = {
            name: scheduled.GraphNode(name, tuple(feeding[name].values()), any_input=node.join == "any")
            for name, node in self.nodes.items()
        }
        return scheduled.Graph(nodes=nodes, wires=tuple(wires))

    def _cycle(self) -> tuple[str, ...]:
        sorter = TopologicalSorter[str]()
        for edge in self.edges:
            sorter.add(edge.target, edge.source)
        try:
            sorter.prepare()
        except CycleError as exc:
            return (f"These nodes wait for each other: {' -> '.join(exc.args[1])}.",)
        return ()


def _wire(index: int, edge: GraphEdge, *, from_error: bool = False, condition: _Condition | None = None) -> Wire:
    return Wire(
        index=index,
        source=edge.source,
        source_port=ERROR if from_error else RESULT,
        target=edge.target,
        target_port=edge.source,
        from_error=from_error,
        condition=condition,
    )


def _condition(edge: GraphEdge) -> _Condition | None:
    if edge.condition is None:
        return None
    test = edge.condition
    return _Condition(edge, compile_expression(test, NAMES) if isinstance(test, str) else test)


@dataclass(frozen=True, slots=True)
class _Condition:
    """A condition as the scheduler asks it: the wire's value is the source's OperatorResult."""

    edge: GraphEdge
    test: Expression | Callable[[OperatorResult], bool]
    context_fields: frozenset[str] = frozenset()

    @property
    def source(self) -> str:
        return self.test.source if isinstance(self.test, Expression) else getattr(self.test, "__name__", "a function")

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        result: OperatorResult = values["value"]
        if isinstance(self.test, Expression):
            return self.test.evaluate(
                {"content": result.content, "data": dict(result.data), "context": values["context"]}
            )
        try:
            return self.test(result)
        except Exception as exc:  # foreign code
            raise ExpressionFailed(f"it raised {type(exc).__name__}: {exc}", cause=str(exc)) from exc
