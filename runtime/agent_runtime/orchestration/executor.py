"""Runs a graph of operators with agentflow's scheduler and the one run loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from agent_runtime.orchestration.children import Children
from agent_runtime.orchestration.context import OperatorContext
from agent_runtime.orchestration.graph import RESULT, ExecutionGraph
from agent_runtime.orchestration.operators import Operator
from agent_runtime.orchestration.results import OperatorResult, following
from agentflow.failure import Failure
from agentflow.ir import FailureType
from agentflow.schedule import RunStarted, StartNode
from llm_client.errors import CallFailed, CallRefused
from runtime_core.loop import Observer, run_graph
from runtime_core.outcome import NodeOutcome
from runtime_core.report import NodeStatus, RunReport

SKIPPED = OperatorResult.failed("a node before it failed, or took another way", code="skipped")
CANCELLED = OperatorResult.failed("the graph ended before it did", code="cancelled")


@dataclass(frozen=True, slots=True)
class GraphResults(Mapping[str, OperatorResult]):
    """The result of every node by its id; that of a node which did not run has the code `skipped` or `cancelled`.

    `error` says why the graph ended early, None where it did not. `unhandled` are the nodes that failed, and whose
    failure no edge carries on. `report` has the times and attempts of all nodes.
    """

    results: Mapping[str, OperatorResult]
    report: RunReport
    sinks: tuple[str, ...] = ()
    error: str | None = None
    unhandled: tuple[str, ...] = ()

    def __getitem__(self, node: str) -> OperatorResult:
        return self.results[node]

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    @property
    def success(self) -> bool:
        """Whether nothing failed that no edge takes; a node on a way that was not taken is no failure."""
        return self.error is None and not self.unhandled

    @property
    def status(self) -> dict[str, NodeStatus]:
        return {node: report.status for node, report in self.report.nodes.items()}

    @property
    def answers(self) -> dict[str, Any]:
        """What the last nodes answered, those that did."""
        return {node: self.results[node].content for node in self.sinks if self.results[node].success}


class GraphExecutor:
    """Graph execution (source: agent-runtime, Graph Execution).

    A node starts as soon as every edge into it is settled. After a failed node, or on a way that was not taken, nodes
    are skipped; the others go on, unless `stop_on_failure`. A first node is given the graph's input; one that follows
    others gets their `data`, their answers as `results` by node, and all of them as `text`. An executor may run any
    number of times at once; the graph is compiled when it is made. Raises GraphInvalid, OrchestrationError.
    """

    def __init__(self, graph: ExecutionGraph, *, stop_on_failure: bool = False) -> None:
        self._compiled = graph.compiled(stop_on_failure=stop_on_failure)
        self._nodes = dict(graph.nodes)
        self._operators = graph.operators()
        self._sinks = graph.sinks()
        self._handled = {edge.source for edge in graph.edges if edge.on != "success"}
        self._draw = Random().random

    async def execute(
        self, input_data: Mapping[str, Any], context: OperatorContext | None = None, *, observe: Observer | None = None
    ) -> GraphResults:
        """Run to the end. Raises LimitReached, and CallCancelled when the context's token is cancelled."""
        context = context or OperatorContext()
        children = Children(context, covered=True)
        children.expect(len(self._nodes))
        results: dict[str, OperatorResult] = {}

        async def dispatch(command: StartNode) -> NodeOutcome:
            before = {source: results[source] for source, value in command.inputs.items() if value is not None}
            given = following(input_data, before)
            result, attempts = await self._attempts(children, command.node, given, context)
            results[command.node] = result
            if result.success:
                return NodeOutcome(outputs={RESULT: result}, attempts=attempts, use=result.use)
            kind: FailureType = "timeout" if result.code == "timeout" else "error"
            failure = Failure(result.error or "it said nothing", kind=kind, attempts=attempts)
            return NodeOutcome(failure=failure, attempts=attempts, use=result.use)

        async with context.cancellation.scope() if context.config.propagate_cancellation else nullcontext():
            report = await run_graph(
                self._compiled,
                RunStarted(request=input_data, fields=input_data),
                dispatch,
                clock=context.clock,
                run_id=context.execution.run_id,
                trace_id=context.execution.trace_id,
                observe=observe,
            )
        for node, about in report.nodes.items():
            if node not in results or about.status == "cancelled":
                results[node] = SKIPPED if about.status == "skipped" else CANCELLED
        error = report.error.message if report.error is not None else None
        failed = [node for node, about in report.nodes.items() if about.status == "failed"]
        return GraphResults(
            {node: results[node] for node in self._nodes},
            report,
            sinks=self._sinks,
            error=error,
            unhandled=tuple(node for node in failed if node not in self._handled),
        )

    async def _attempts(
        self, children: Children, name: str, given: Mapping[str, Any], context: OperatorContext
    ) -> tuple[OperatorResult, int]:
        """The result of the last try, and how many there were."""
        node, operator = self._nodes[name], self._operators[name]
        result = await children.run(name, operator, given, timeout_s=node.timeout_s)
        failed = 1
        while not result.success and failed < node.retry.attempts and _may_differ(result):
            asked = result.cause.retry_after if isinstance(result.cause, CallFailed) else None
            pause = node.retry.pause_s(failed, retry_after=asked, draw=self._draw)
            left = context.remaining_s()
            if left is not None and left <= pause:
                break
            await context.clock.sleep(pause)
            again = await children.run(name, operator, given, timeout_s=node.timeout_s, again=True)
            result, failed = replace(again, use=result.use + again.use), failed + 1
        return result, failed


def _may_differ(failed: OperatorResult) -> bool:
    """Whether the same thing again may succeed: not what was refused."""
    return not isinstance(failed.cause, CallRefused)


class GraphOperator(Operator):
    """A graph as one operator. Its answer is that of its last node, or of its last nodes by id."""

    def __init__(self, executor: GraphExecutor, *, name: str = "graph") -> None:
        super().__init__()
        self._executor = executor
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    async def execute(self, input_data: dict[str, Any], context: OperatorContext) -> OperatorResult:
        done = await self._executor.execute(input_data, context)
        if not done.success:
            if done.unhandled:
                return done[done.unhandled[0]].failing(done.unhandled[0], done)
            return OperatorResult.failed(done.error or "it was cancelled").over(done)
        answers = done.answers
        content = next(iter(answers.values())) if len(answers) == 1 else answers
        return OperatorResult(content=content).over(done)
