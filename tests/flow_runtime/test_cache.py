"""`runtime.cache`: what is looked up, what is kept, for whom and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from agentflow.failure import Failure
from flow_runtime import LocalFlow, LocalSettings
from flow_runtime.errors import ModelFailed
from flow_runtime.outcome_cache import CacheKey, OutcomeCache, json_text
from runtime_core.clock import ManualClock
from runtime_core.context import Identity
from runtime_core.outcome import NodeOutcome
from support.flows import ScriptedModels, small_flow
from support.waiting import until

NODES = """
ask:
  inputs: [{name: x, type: %(type)s}]
  outputs: [{name: answer, type: %(out)s}]
  %(node)s
  prompt: {template: "%(template)s", role: main}
  runtime: {cache: {ttl_seconds: 60%(key)s}}
"""


def asking(template: str = "{{ x }}", key: str = "", node: str = "", type: str = "string", out: str = "string"):
    text = NODES % {"template": template, "key": key, "node": node, "type": type, "out": out}
    return small_flow(
        text, ["_input.x -> ask.x", "ask.answer -> _output"], context={"optional": ["user", "session", "event_time"]}
    )


class Counting(ScriptedModels):
    """Every answer is another one, so that a kept answer can be told from a new one."""

    def __init__(self) -> None:
        super().__init__({"main": [f"answer {number}" for number in range(100)]})


def scope(name: str) -> Identity:
    return Identity(scope_id=name)


async def answers(flow: Any, *requests: Mapping[str, Any], **settings: Any) -> list[Any]:
    async with LocalFlow(flow, models=Counting(), settings=LocalSettings(**settings)) as runner:
        reports = [await runner.run(request) for request in requests]
    assert [report.error for report in reports] == [None] * len(reports)
    return [report.output for report in reports]


async def test_equal_inputs_are_answered_once_whatever_the_time_and_the_trace():
    first, other, again = await answers(asking(), {"x": "a"}, {"x": "b"}, {"x": "a"})
    assert first == again != other


async def test_a_kept_outcome_has_no_attempts():
    async with LocalFlow(asking(), models=Counting()) as runner:
        attempts = [(await runner.run({"x": "a"})).nodes["ask"].attempts for _ in range(2)]
    assert attempts == [1, 0]


async def test_only_the_request_fields_that_the_node_reads_tell_outcomes_apart():
    one, two = await answers(asking(), {"x": "a", "user": "u1"}, {"x": "a", "user": "u2"})
    assert one == two
    one, two = await answers(asking("{{ x }} {{ context.user }}"), {"x": "a", "user": "u1"}, {"x": "a", "user": "u2"})
    assert one != two


async def test_a_key_template_replaces_the_inputs():
    flow = asking(key=", key: '{context.user}'")
    one, two, three = await answers(flow, {"x": "a", "user": "u1"}, {"x": "b", "user": "u1"}, {"x": "a", "user": "u2"})
    assert one == two != three
    flow = asking(key=", key: '{x}-{context.event_time}'")
    one, two = await answers(flow, *({"x": "a", "event_time": f"2026-01-0{day}T00:00:00Z"} for day in (1, 2)))
    assert one != two


async def test_a_key_that_cannot_be_filled_fails_the_node():
    async with LocalFlow(asking(key=", key: '{context.user}'"), models=Counting()) as runner:
        report = await runner.run({"x": "a"})
    assert "{context.user} in the cache key '{context.user}' cannot be filled" in report.error.message


async def test_scopes_never_share_an_outcome():
    async with LocalFlow(asking(key=", key: fixed"), models=Counting()) as runner:
        found = [(await runner.run({"x": "a"}, identity=scope(name))).output for name in ("t1", "t2", "t1", "t2")]
    assert found[0] == found[2] != found[1] == found[3]


async def test_an_outcome_is_kept_for_its_time_only():
    clock = ManualClock()
    async with LocalFlow(asking(), models=Counting(), settings=LocalSettings(clock=clock)) as runner:
        first = (await runner.run({"x": "a"})).output
        clock.advance(59.9)
        assert (await runner.run({"x": "a"})).output == first
        clock.advance(0.2)
        assert (await runner.run({"x": "a"})).output != first


async def test_failures_are_not_kept():
    models = ScriptedModels({"main": [ModelFailed("down"), "up"]})
    async with LocalFlow(asking(), models=models) as runner:
        assert (await runner.run({"x": "a"})).error is not None
        assert (await runner.run({"x": "a"})).output == "up"


async def test_with_for_each_the_elements_are_kept_one_by_one():
    flow = asking(node="for_each: {input: x}", type="array", out="array")
    one, two = await answers(flow, {"x": ["a", "b"]}, {"x": ["b", "c", "a"]})
    assert [two[2], two[0]] == one
    assert two[1] not in one


KEY = CacheKey("s", "n", "i")


class Work:
    """Runs that end when they are told to."""

    def __init__(self, outcome: NodeOutcome | None = None) -> None:
        self.outcome = outcome or NodeOutcome(outputs={"y": [1]})
        self.started = 0
        self.go = asyncio.Event()

    async def run(self) -> NodeOutcome:
        self.started += 1
        await self.go.wait()
        return self.outcome


def failed() -> NodeOutcome:
    return NodeOutcome(failure=Failure("no"), attempts=1)


def ask(cache: OutcomeCache, work: Work, key: CacheKey = KEY) -> asyncio.Task[NodeOutcome]:
    return asyncio.create_task(cache.through(key, work.run, ttl_s=60, clock=ManualClock()))


async def test_equal_calls_at_the_same_time_run_once_and_share_no_object():
    cache, work = OutcomeCache(), Work()
    tasks = [ask(cache, work) for _ in range(5)]
    await until(lambda: work.started)
    work.go.set()
    outcomes = await asyncio.gather(*tasks)
    assert work.started == 1
    assert [outcome.outputs for outcome in outcomes] == [{"y": [1]}] * 5
    assert len({id((outcome.outputs or {})["y"]) for outcome in outcomes}) == 5


async def test_a_cancelled_leader_does_not_fail_those_who_wait():
    cache, work = OutcomeCache(), Work()
    leader, *others = [ask(cache, work) for _ in range(4)]
    await until(lambda: work.started == 1)
    leader.cancel()
    await until(lambda: work.started == 2)
    others[1].cancel()
    work.go.set()
    with pytest.raises(asyncio.CancelledError):
        await leader
    assert [(await task).outputs for task in (others[0], others[2])] == [{"y": [1]}] * 2
    assert work.started == 2


async def test_a_failure_is_nobody_elses_and_nobody_waits_twice():
    cache, work = OutcomeCache(), Work(failed())
    tasks = [ask(cache, work) for _ in range(4)]
    await until(lambda: work.started == 1)
    work.go.set()
    outcomes = await asyncio.gather(*tasks)
    assert work.started == 4
    assert all(outcome.failure is not None for outcome in outcomes)
    assert len(cache) == 0


async def put(cache: OutcomeCache, name: str, size: int = 1) -> bool:
    """Whether the work had to be done."""
    work = Work(NodeOutcome(outputs={"y": "x" * size}))
    work.go.set()
    await ask(cache, work, CacheKey("s", "n", name))
    return bool(work.started)


async def test_the_cache_is_bounded_in_number_and_the_least_used_goes_first():
    cache = OutcomeCache(max_entries=2)
    assert [await put(cache, name) for name in "abacab"] == [True, True, False, True, False, True]
    assert len(cache) == 2


async def test_the_cache_is_bounded_in_size_and_one_entry_cannot_fill_it():
    cache = OutcomeCache(max_chars=800)
    assert [await put(cache, "large", 200), await put(cache, "large", 200)] == [True, True]
    for number in range(20):
        await put(cache, str(number), 80)
    assert 5 < len(cache) < 10


@pytest.mark.parametrize("value", [{"a": (1, 2)}, {1: 2}, {"a": object()}, {"a": float("nan")}, {"a": {3}}])
def test_what_json_would_change_is_neither_kept_nor_looked_up(value: Any):
    assert json_text(value) is None


def test_equal_values_have_one_text_and_different_ones_never():
    assert json_text({"a": 1, "b": [None]}) == json_text({"b": [None], "a": 1})
    assert len({json_text(value) for value in (1, 1.0, True, "1", [1], None, "null")}) == 7
