"""One request through one flow: what nodes are told of it, what is refused, and what is cleaned up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from agentflow import Flow, plan
from agentflow.failure import Failure
from flow_runtime.call import NodeCall
from flow_runtime.errors import StateFailed
from flow_runtime.runner import FlowRunner
from flow_runtime.state import StateBackends
from runtime_core.clock import ManualClock
from runtime_core.context import Identity
from runtime_core.errors import DispatchRefusedError, NodeLostError
from runtime_core.ids import SequentialIds
from runtime_core.outcome import NodeOutcome
from support.flows import small_flow

START = datetime(2026, 1, 1, tzinfo=UTC)
Answer = Callable[[str, Mapping[str, Any], NodeCall], Awaitable[NodeOutcome]]


class Nodes:
    """A dispatcher that keeps its calls and echoes the input `x`, or does what it is given."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.calls: list[tuple[str, dict[str, Any], NodeCall]] = []
        self._answer = answer

    async def call(self, node: str, inputs: Mapping[str, Any], call: NodeCall) -> NodeOutcome:
        self.calls.append((node, dict(inputs), call))
        if self._answer is not None:
            return await self._answer(node, inputs, call)
        return NodeOutcome(outputs={"out": inputs.get("x")}, attempts=1)


class Buckets:
    """A state backend of which only `forget` is called."""

    def __init__(self, error: Exception | None = None) -> None:
        self.forgotten: list[tuple[str, str]] = []
        self._error = error

    async def forget(self, scope_id: str, space: str) -> None:
        self.forgotten.append((scope_id, space))
        if self._error is not None:
            raise self._error


def flow(state: str = "", **top: Any) -> Flow:
    return small_flow(
        f"""
        a:
          inputs: [{{name: x, type: string}}]
          outputs: [{{name: out, type: string}}]
          {state or "description: stateless"}
          transform: {{mode: code, spec: "async def transform(inputs, context, state): return {{}}"}}
        """,
        ["_input.x -> a.x", "a.out -> _output"],
        **top,
    )


def runner(of: Flow, nodes: Nodes, *, buckets: Buckets | None = None) -> FlowRunner:
    backends: dict[str, Any] = {"memory": buckets} if buckets else {}
    return FlowRunner(plan(of), nodes, clock=ManualClock(START), ids=SequentialIds(), state=StateBackends(backends))


async def test_a_node_is_told_who_asks_in_which_run_until_when_and_the_requests_fields():
    nodes = Nodes()
    report = await runner(flow(inputs={"page": {"default": 1}}), nodes).run(
        {"x": "hello", "session_id": "s-1"},
        identity=Identity(scope_id="shop", principal_id="ada"),
        trace_id="trace-7",
        deadline_s=60,
    )
    assert report.output == "hello"
    [(node, inputs, call)] = nodes.calls
    assert (node, inputs) == ("a", {"x": "hello"})
    context = call.context
    assert (context.scope_id, context.principal_id, context.session_id) == ("shop", "ada", "s-1")
    assert (context.run_id, context.trace_id) == (report.run_id, "trace-7") == ("run-1", report.trace_id)
    assert context.remaining_s(START) == 60
    assert call.fields == {
        "x": "hello",
        "page": 1,
        "session_id": "s-1",
        "trace_id": "trace-7",
        "event_time": START.isoformat(),
    }


async def test_a_user_id_in_the_request_is_data_and_never_an_identity():
    nodes = Nodes()
    await runner(flow(), nodes).run({"x": "x", "user_id": "root", "scope_id": "other", "principal_id": "root"})
    [(_, _, call)] = nodes.calls
    assert (call.context.scope_id, call.context.principal_id) == ("default", "anonymous")


async def test_without_a_deadline_there_is_none():
    nodes = Nodes()
    await runner(flow(), nodes).run({"x": "x"})
    assert nodes.calls[0][2].context.deadline is None


@pytest.mark.parametrize(
    ("request_", "says"),
    [({}, "'x'"), ({"x": "x", "session_id": ""}, "session_id"), ({"x": "x", "session_id": "a\u200bb"}, "session_id")],
)
async def test_a_request_that_does_not_fit_is_reported_and_reaches_no_node(request_: dict[str, Any], says: str):
    nodes, buckets = Nodes(), Buckets()
    report = await runner(flow("state: {scope: request}"), nodes, buckets=buckets).run(request_, trace_id="t")
    assert report.error is not None
    assert (report.error.code, report.trace_id, report.nodes) == ("bad_input", "t", {})
    assert says in report.error.message
    assert nodes.calls == [] and buckets.forgotten == []


async def test_a_trace_id_that_is_not_safe_to_log_is_replaced():
    report = await runner(flow(), Nodes()).run({"x": "x"}, trace_id="two\nlines")
    assert "\n" not in report.trace_id


async def test_a_lost_or_refused_node_is_reported_with_what_the_caller_may_do():
    async def refuse(*_: object) -> NodeOutcome:
        raise DispatchRefusedError("its queue is full", code="overloaded", retry_after=2)

    async def lose(*_: object) -> NodeOutcome:
        raise NodeLostError("the process died")

    refused = (await runner(flow(), Nodes(refuse)).run({"x": "x"})).error
    assert refused is not None
    assert (refused.code, refused.node, refused.retry_after) == ("overloaded", "a", 2)
    lost = (await runner(flow(), Nodes(lose)).run({"x": "x"})).error
    assert lost is not None
    assert (lost.code, lost.node) == ("node_lost", "a")


async def test_a_runs_own_state_is_dropped_when_it_succeeds_fails_or_is_cancelled():
    started = asyncio.Event()

    async def hang(*_: object) -> NodeOutcome:
        started.set()
        await asyncio.sleep(30)
        raise AssertionError

    async def fail(*_: object) -> NodeOutcome:
        return NodeOutcome(failure=Failure("broke", attempts=1), attempts=1)

    for answer in (None, fail):
        buckets = Buckets()
        of = runner(flow("state: {scope: request}"), Nodes(answer), buckets=buckets)
        await of.run({"x": "x"}, identity=Identity(scope_id="shop"))
        assert buckets.forgotten == [("shop", "run-1")]
    buckets = Buckets()
    task = asyncio.create_task(runner(flow("state: {scope: request}"), Nodes(hang), buckets=buckets).run({"x": "x"}))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert buckets.forgotten == [("default", "run-1")]


async def test_session_state_is_not_dropped_with_the_run():
    buckets = Buckets()
    of = flow("state: {scope: session, key: '{context.session_id}'}", context={"optional": ["session_id"]})
    await runner(of, Nodes(), buckets=buckets).run({"x": "x"})
    assert buckets.forgotten == []


async def test_state_that_cannot_be_dropped_costs_no_answer(caplog: pytest.LogCaptureFixture):
    buckets = Buckets(StateFailed("the shared state does not answer"))
    report = await runner(flow("state: {scope: request}"), Nodes(), buckets=buckets).run({"x": "fine"})
    assert (report.output, report.error) == ("fine", None)
    assert "run-1" in caplog.text


async def test_one_runner_serves_many_requests_at_once_each_as_a_run_of_its_own():
    nodes = Nodes()
    of = runner(flow(), nodes)
    reports = await asyncio.gather(*(of.run({"x": str(number)}) for number in range(20)))
    assert [report.output for report in reports] == [str(number) for number in range(20)]
    assert len({call.context.run_id for _, _, call in nodes.calls}) == 20
    assert len({report.trace_id for report in reports}) == 20
