"""Graphs of operators on the scheduler of flows, against a naive interpreter that knows no scheduler."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runtime import (
    BudgetExceededError,
    ExecutionGraph,
    GraphEdge,
    GraphExecutor,
    GraphInvalid,
    GraphNode,
    GraphOperator,
    LimitReached,
    OperatorContext,
    OperatorResult,
    OrchestrationConfig,
)
from llm_client import CallCancelled, CancellationToken, RetryPolicy
from runtime_core.clock import ManualClock
from support.waiting import until

Given = dict[str, Any]
WIDE = OperatorContext(config=OrchestrationConfig(max_child_jobs=100))


async def says(given: Given, context: OperatorContext) -> OperatorResult:
    name = context.path[-1]
    return OperatorResult(content=f"{name}({given.get('text', '')})", data={name: 1})


async def fails(given: Given, context: OperatorContext) -> OperatorResult:
    return OperatorResult.failed("no luck", code="unlucky")


def graph(edges: str, **operators: Any) -> ExecutionGraph:
    """`a>b b>c!` : an edge, and one that carries a failure. Nodes say their name unless an operator is given."""
    made = ExecutionGraph()
    joined = [edge.removesuffix("!").split(">") for edge in edges.split()]
    for name in dict.fromkeys([*(end for edge in joined for end in edge), *operators]):
        node = operators.get(name, says)
        made.add_node(node if isinstance(node, GraphNode) else GraphNode(name, node))
    for edge, (source, target) in zip(edges.split(), joined, strict=True):
        made.add_edge(GraphEdge(source, target, on="failure" if edge.endswith("!") else "success"))
    return made


async def run(made: ExecutionGraph, text: str = "x", **options: Any) -> Any:
    return await GraphExecutor(made, **options).execute({"text": text}, WIDE)


async def test_data_flows_along_the_edges():
    seen: Given = {}

    async def last(given: Given, context: OperatorContext) -> str:
        seen.update(given)
        return "end"

    results = await run(graph("a>b a>c b>d c>d", d=last))
    assert results.success
    assert results["d"].content == "end"
    assert seen["results"] == {"b": "b(a(x))", "c": "c(a(x))"}
    assert (seen["b"], seen["c"], seen["text"]) == (1, 1, "b(a(x))\n\nc(a(x))")
    assert results.answers == {"d": "end"}


async def test_what_follows_a_failure_is_skipped_and_the_rest_goes_on():
    results = await run(graph("a>bad bad>b b>c a>d", bad=fails))
    assert results.status == {"a": "succeeded", "bad": "failed", "b": "skipped", "c": "skipped", "d": "succeeded"}
    assert (results.success, results["c"].code, results["bad"].code) == (False, "skipped", "unlucky")


async def test_a_graph_may_stop_at_its_first_failure():
    never = asyncio.Event()

    async def waits(given: Given, context: OperatorContext) -> str:
        await never.wait()
        return "no"

    results = await run(graph("a>bad a>slow slow>b", bad=fails, slow=waits), stop_on_failure=True)
    assert results.status == {"a": "succeeded", "bad": "failed", "slow": "cancelled", "b": "cancelled"}
    assert "node 'bad' failed: no luck" in (results.error or "")
    handled = await run(graph("bad>rescue!", bad=fails), stop_on_failure=True)
    assert handled.status == {"bad": "failed", "rescue": "succeeded"}


async def test_a_failure_may_be_carried_to_a_node_that_handles_it():
    seen: Given = {}

    async def rescue(given: Given, context: OperatorContext) -> str:
        seen.update(given)
        return "saved"

    results = await run(graph("bad>rescue! bad>b", bad=fails, rescue=rescue))
    assert results.status == {"bad": "failed", "rescue": "succeeded", "b": "skipped"}
    assert (seen["results"], results.success) == ({"bad": "no luck"}, True)
    well = await run(graph("a>rescue!", rescue=rescue))
    assert (well.status, well.success) == ({"a": "succeeded", "rescue": "skipped"}, True)


async def test_conditions_choose_the_way_as_functions_or_as_expressions():
    made = ExecutionGraph()

    async def judge(given: Given, context: OperatorContext) -> OperatorResult:
        return OperatorResult(content="ok", data={"score": given["score"]})

    for node in (
        GraphNode("judge", judge),
        GraphNode("high", says),
        GraphNode("low", says),
        GraphNode("end", says, join="any"),
    ):
        made.add_node(node)
    made.add_edge(GraphEdge("judge", "high", condition="data['score'] > context.limit"))
    made.add_edge(GraphEdge("judge", "low", condition=lambda result: result.data["score"] <= 5))
    made.add_edge(GraphEdge("high", "end"))
    made.add_edge(GraphEdge("low", "end"))
    executor = GraphExecutor(made)
    for score, other in ((9, "low"), (2, "high")):
        results = await executor.execute({"score": score, "limit": 5})
        assert [node for node, status in results.status.items() if status == "skipped"] == [other]
        assert (results.success, results["end"].success) == (True, True)


@pytest.mark.parametrize("condition", ["data['nothing'] > 1", lambda result: 1 / 0])
async def test_a_condition_that_cannot_be_asked_ends_the_graph(condition: Any):
    made = graph("", a=says, b=says)
    made.add_edge(GraphEdge("a", "b", condition=condition))
    results = await run(made)
    assert not results.success
    assert "'a' to 'b'" in (results.error or "")


async def test_a_node_is_tried_again_as_its_retry_says():
    clock, tries = ManualClock(), list[int]()

    async def flaky(given: Given, context: OperatorContext) -> str:
        tries.append(1)
        if len(tries) < 3:
            raise ValueError("not yet")
        return "now"

    retry = RetryPolicy(attempts=3, backoff_s=1, jitter=False)
    executor = GraphExecutor(graph("", flaky=GraphNode("flaky", flaky, retry=retry)))
    running = asyncio.create_task(executor.execute({}, OperatorContext(clock=clock)))
    for pause in (1, 2):
        await until(lambda: clock.sleepers == 1)
        clock.advance(pause)
    results = await running
    assert (results["flaky"].content, results.report.nodes["flaky"].attempts) == ("now", 3)


async def test_what_was_refused_is_not_tried_again():
    tries: list[int] = []

    async def refused(given: Given, context: OperatorContext) -> str:
        tries.append(1)
        raise BudgetExceededError("spent", limit="max_tokens")

    results = await run(graph("", a=GraphNode("a", refused, retry=RetryPolicy(attempts=5, backoff_s=0))))
    assert (len(tries), results["a"].code) == (1, "budget_exceeded")


async def test_a_timeout_bounds_each_try():
    async def hangs(given: Given, context: OperatorContext) -> str:
        await asyncio.Event().wait()
        return "no"

    node = GraphNode("a", hangs, timeout_s=0.01, retry=RetryPolicy(attempts=2, backoff_s=0))
    results = await run(graph("a>b", a=node))
    assert (results["a"].code, results.report.nodes["a"].attempts) == ("timeout", 2)
    assert results.report.nodes["a"].error == {
        "reason": "it took longer than 0.01 s",
        "node": "a",
        "type": "timeout",
        "attempts": 2,
    }


async def test_a_cancelled_token_ends_the_graph():
    token, started = CancellationToken(), asyncio.Event()

    async def hangs(given: Given, context: OperatorContext) -> str:
        started.set()
        await asyncio.Event().wait()
        return "no"

    executor = GraphExecutor(graph("a>b", a=hangs))
    running = asyncio.create_task(executor.execute({}, OperatorContext(cancellation=token)))
    await started.wait()
    token.cancel("enough")
    with pytest.raises(CallCancelled):
        await running
    assert len(asyncio.all_tasks()) == 1


async def test_a_graph_of_more_nodes_than_children_are_allowed_does_not_start():
    executor = GraphExecutor(graph(" ".join(f"n{n}>n{n + 1}" for n in range(10))))
    with pytest.raises(LimitReached, match="max_child_jobs"):
        await executor.execute({}, OperatorContext())


async def test_a_graph_is_an_operator_of_another_graph():
    inner = GraphOperator(GraphExecutor(graph("a>b")), name="inner")
    results = await run(graph("inner>c", inner=inner))
    assert results["c"].content == "c(b(a(x)))"
    broken = GraphOperator(GraphExecutor(graph("a>bad", bad=fails)), name="inner")
    results = await run(graph("inner>c", inner=broken))
    assert results.unhandled == ("inner",)
    assert results["inner"].error == "'bad' failed: no luck"


def test_everything_that_is_wrong_with_a_graph_is_said_at_once():
    made = graph("a>b b>a c>c a>b", d=says)
    made.add_edge(GraphEdge("a", "nowhere"))
    made.add_edge(GraphEdge("a", "d", condition="import os"))
    made.add_edge(GraphEdge("b", "d", condition="content", on="failure"))
    with pytest.raises(GraphInvalid) as refused:
        GraphExecutor(made)
    said = " ".join(refused.value.problems)
    for part in ("wait for each other", "'nowhere'", "Two edges", "condition", "is about a success"):
        assert part in said
    with pytest.raises(GraphInvalid, match="no nodes"):
        GraphExecutor(ExecutionGraph())
    with pytest.raises(GraphInvalid, match="already"):
        made.add_node(GraphNode("a", says))


# Random graphs, and what must come of them


@dataclass(frozen=True)
class Edge:
    source: int
    target: int
    on: Literal["success", "failure", "always"]
    open: bool


@dataclass(frozen=True)
class Shape:
    """`breaks` are the nodes that fail, `any` those that are content with one edge."""

    count: int
    edges: tuple[Edge, ...]
    breaks: frozenset[int]
    any: frozenset[int]


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    count = draw(st.integers(1, 9))
    pairs = [(source, target) for target in range(count) for source in range(target)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=16)) if pairs else []
    edges = [
        Edge(source, target, on, on != "success" or draw(st.booleans()))
        for source, target in chosen
        for on in [draw(st.sampled_from(("success", "success", "success", "failure", "always")))]
    ]
    nodes = st.frozensets(st.integers(0, count - 1))
    return Shape(count, tuple(draw(st.permutations(edges))), draw(nodes), draw(nodes))


def interpreted(shape: Shape) -> dict[str, str]:
    """What becomes of each node, by recursion."""
    known: dict[int, str] = {}

    def carries(edge: Edge) -> bool:
        became = becomes(edge.source)
        if became == "succeeded":
            return edge.on != "failure" and edge.open
        return became == "failed" and edge.on != "success"

    def becomes(node: int) -> str:
        if node not in known:
            into = [carries(edge) for edge in shape.edges if edge.target == node]
            enough = any(into) if node in shape.any else all(into)
            known[node] = "skipped" if into and not enough else "failed" if node in shape.breaks else "succeeded"
        return known[node]

    return {str(node): becomes(node) for node in range(shape.count)}


@given(shapes())
def test_random_graphs_do_what_a_naive_interpreter_says(shape: Shape):
    order: list[str] = []

    async def works(given: Given, context: OperatorContext) -> OperatorResult:
        name = context.path[-1]
        await asyncio.sleep(0)
        order.append(name)
        fed = {str(edge.source) for edge in shape.edges if str(edge.target) == name}
        assert set(given.get("results", ())) <= fed
        assert set(given.get("results", ())) <= set(order), "a node ran before one that feeds it"
        return await (fails if int(name) in shape.breaks else says)(given, context)

    made = ExecutionGraph()
    for node in range(shape.count):
        made.add_node(GraphNode(str(node), works, join="any" if node in shape.any else "all"))
    for edge in shape.edges:
        shut = None if edge.open else (lambda result: False)
        made.add_edge(GraphEdge(str(edge.source), str(edge.target), condition=shut, on=edge.on))
    results = asyncio.run(run(made))
    assert results.status == interpreted(shape)
    assert len(order) == len(set(order))
    assert results.error is None
