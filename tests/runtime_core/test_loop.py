"""The run loop: real tasks, real time, no waiting for levels, nothing left behind."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from agentflow.failure import Failure
from agentflow.schedule import RunStarted, StartNode
from runtime_core.clock import SystemClock
from runtime_core.errors import DispatchRefusedError, NodeLostError
from runtime_core.loop import run_graph
from runtime_core.outcome import NodeOutcome
from runtime_core.report import RunReport
from support.graphs import graph

STARTED = RunStarted(request={"x": 1}, fields={"x": 1})


async def run(target: Any, dispatch: Any, **options: Any) -> RunReport:
    async with asyncio.timeout(20):
        return await run_graph(target, STARTED, dispatch, clock=SystemClock(), run_id="r", trace_id="t", **options)


def taking(times: dict[str, float]) -> Any:
    async def dispatch(command: StartNode) -> NodeOutcome:
        await asyncio.sleep(times.get(command.node, 0))
        return NodeOutcome(outputs={"out": command.node})

    return dispatch


@pytest.fixture(autouse=True)
async def _no_task_is_left():
    before = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() - before - {asyncio.current_task()} == set()


async def test_no_level_holds_a_node_back():
    asymmetric = graph("_input.x -> a", "a -> b", "a -> c", "c -> d", "b -> e.b", "d -> e.d", "e -> _output")
    release = asyncio.Event()

    async def dispatch(command: StartNode) -> NodeOutcome:
        if command.node == "d":
            release.set()
        if command.node == "b":
            await release.wait()
        return NodeOutcome(outputs={"out": command.node})

    report = await run(asymmetric, dispatch)
    assert report.output == "e", "b waits for d to start, which a barrier behind b and c would never let happen"


async def test_the_report_says_what_became_of_each_node_and_when():
    flow = graph("_input.x -> a", "a -> b if out == 'nobody'", "b -> _output", "a -> _output")
    report = await run(flow, taking({"a": 0.05}))
    assert report.nodes["a"].status == "succeeded"
    assert report.nodes["a"].finished_s - report.nodes["a"].started_s >= 0.04
    assert (report.nodes["b"].status, report.nodes["b"].started_s) == ("skipped", None)


async def test_the_observer_hears_of_every_start_and_every_end_in_order():
    heard: list[tuple[str, str | None]] = []
    chain = graph("_input.x -> a", "a -> b", "b -> _output")
    await run(chain, taking({}), observe=lambda node, status, at_s: heard.append((node, status)))
    assert heard == [("a", None), ("b", None), ("a", "succeeded"), ("b", "succeeded")] or heard == [
        ("a", None),
        ("a", "succeeded"),
        ("b", None),
        ("b", "succeeded"),
    ]


async def test_a_failure_that_nobody_handles_cancels_the_others_and_is_the_error():
    cancelled: list[str] = []

    async def dispatch(command: StartNode) -> NodeOutcome:
        if command.node == "bad":
            return NodeOutcome(failure=Failure("broke", attempts=3), attempts=3)
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(command.node)
            raise
        raise AssertionError

    report = await run(graph("_input.x -> bad", "_input.x -> slow", "bad -> _output", "slow -> _output"), dispatch)
    assert report.error.code == "node_failed"
    assert report.error.node == "bad"
    assert report.nodes["bad"].attempts == 3
    assert report.nodes["slow"].status == "cancelled"
    assert cancelled == ["slow"]


async def test_the_deadline_ends_the_run_and_cancels_its_nodes():
    began = time.perf_counter()
    report = await run(graph("_input.x -> a", "a -> _output"), taking({"a": 30}), deadline_s=0.1)
    assert report.error.code == "deadline_exceeded"
    assert time.perf_counter() - began < 5


async def test_a_node_that_swallows_cancellation_cannot_hold_the_answer_for_long():
    release = asyncio.Event()

    async def stubborn(command: StartNode) -> NodeOutcome:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return NodeOutcome(outputs={})

    report = await run(graph("_input.x -> a", "a -> _output"), stubborn, deadline_s=0.05)
    assert report.error.code == "deadline_exceeded"
    release.set()
    await asyncio.sleep(0.05)


async def test_whoever_cancels_the_run_cancels_its_nodes():
    running, cancelled = asyncio.Event(), asyncio.Event()

    async def dispatch(command: StartNode) -> NodeOutcome:
        running.set()
        try:
            await asyncio.sleep(30)
        finally:
            cancelled.set()
        raise AssertionError

    task = asyncio.create_task(run(graph("_input.x -> a", "a -> _output"), dispatch))
    await running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled.is_set()


async def test_a_node_whose_process_died_is_dispatched_again_and_the_run_goes_on():
    dispatches: list[int] = []

    async def dispatch(command: StartNode) -> NodeOutcome:
        dispatches.append(command.dispatch)
        if command.dispatch < 3:
            raise NodeLostError("it died", node=command.node)
        return NodeOutcome(outputs={"out": "at last"})

    report = await run(graph("_input.x -> a", "a -> _output"), dispatch)
    assert report.output == "at last"
    assert dispatches == [1, 2, 3]


async def test_a_refused_dispatch_is_reported_with_when_to_try_again():
    async def dispatch(command: StartNode) -> NodeOutcome:
        raise DispatchRefusedError("its queue is full", code="overloaded", retry_after=2.0)

    report = await run(graph("_input.x -> a", "a -> _output"), dispatch)
    assert (report.error.code, report.error.retry_after) == ("overloaded", 2.0)


async def test_a_defect_of_the_dispatcher_comes_out_as_it_is():
    async def dispatch(command: StartNode) -> NodeOutcome:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        await run(graph("_input.x -> a", "_input.x -> b", "a -> _output", "b -> _output"), dispatch)


async def test_a_node_that_ends_in_somebody_elses_cancellation_fails_and_does_not_hang_the_run():
    async def dispatch(command: StartNode) -> NodeOutcome:
        other = asyncio.create_task(asyncio.sleep(30))
        other.cancel()
        await other
        raise AssertionError

    report = await run(graph("_input.x -> a", "a -> _output"), dispatch)
    assert (report.error.code, report.error.node) == ("node_failed", "a")
