"""action.require: a node asks a person, and the answer is its value."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import agentflow
from agent_runtime import ActionFilter, ActionManager, ActionStatus, InMemoryActionStore
from agent_runtime.actions.records import ActionRecord
from agentflow.ir import OperationSpec
from agentflow.settings import node_settings
from flow_runtime import LocalFlow, LocalSettings, run
from flow_runtime.errors import OperationFailed
from flow_runtime.flow_tests import run_tests
from flow_runtime.operations import OperationResources, OperationSettings, bind_operation
from flow_runtime.operations.action import LATER_S
from runtime_core.context import Identity
from runtime_core.report import RunReport
from support.waiting import until

REFUND = """
version: "1.0"
metadata: {name: refund}
context: {requires: [order]}
nodes:
  ask:
    inputs: [{name: order, type: string}]
    outputs: [{name: answer, type: object}]
    error: {name: error}
    transform:
      mode: declarative
      spec:
        op: action.require
        args: {type: approve, payload: {order: "${order}"}, timeout_seconds: 60}
  late:
    inputs: [{name: problem, type: object}]
    outputs: [{name: text, type: string}]
    transform: {mode: declarative, spec: {op: io.format_response, args: {template: "nobody: ${problem.type}"}}}
edges:
  - {from: _input.order, to: ask.order}
  - {from: ask.answer, to: _output.answer}
  - {from: ask.error, to: late.problem}
  - {from: late.text, to: _output.late}
"""


def flow(*changes: tuple[str, str]) -> Any:
    text = REFUND
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return agentflow.loads(text).flow


@pytest.fixture
def actions() -> ActionManager:
    return ActionManager(InMemoryActionStore(), poll_s=0.02)


async def the_open_one(actions: ActionManager) -> ActionRecord:
    found: list[ActionRecord] = []

    async def look() -> None:
        while not found:
            found.extend(await actions.list(ActionFilter(status=ActionStatus.PENDING)))
            await asyncio.sleep(0.005)

    await asyncio.wait_for(look(), 10)
    [action] = found
    return action


async def asked(actions: ActionManager, **options: Any) -> asyncio.Task[RunReport]:
    settings = LocalSettings(store="memory:", actions=actions)
    return asyncio.create_task(run(flow(), {"order": "o-7"}, settings=settings, **options))


async def test_the_answer_of_a_person_is_the_value_of_the_node(actions: ActionManager) -> None:
    running = await asked(actions)
    action = await the_open_one(actions)
    assert (action.type, action.payload, action.scope_id) == ("approve", {"order": "o-7"}, "default")
    await actions.resolve(action_id=action.action_id, resolution={"approved": True, "note": "fine"})
    report = await running
    assert report.output == {"answer": {"approved": True, "note": "fine"}}
    assert report.nodes["late"].status == "skipped"


async def test_an_answer_that_does_not_come_goes_to_the_error_port(actions: ActionManager) -> None:
    settings = LocalSettings(store="memory:", actions=actions)
    report = await run(flow(("timeout_seconds: 60", "timeout_seconds: 0.05")), {"order": "o"}, settings=settings)
    assert report.output == {"late": "nobody: timeout"}
    [action] = await actions.list()
    assert action.status is ActionStatus.EXPIRED


async def test_a_withdrawn_question_fails_the_node(actions: ActionManager) -> None:
    running = await asked(actions)
    await actions.cancel((await the_open_one(actions)).action_id)
    assert (await running).output == {"late": "nobody: error"}


async def test_whoever_stops_waiting_withdraws_the_question(actions: ActionManager) -> None:
    report = await (await asked(actions, deadline_s=0.1))
    assert report.error is not None
    await until_settled(actions)
    running = await asked(actions)
    await the_open_one(actions)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert {action.status for action in await actions.list()} == {ActionStatus.CANCELLED}


async def test_a_store_that_is_gone_is_told_apart_from_a_question_that_is_wrong(actions: ActionManager) -> None:
    store = InMemoryActionStore()
    await store.close()
    report = await (await asked(ActionManager(store)))
    assert report.output == {"late": "nobody: unavailable"}


async def until_settled(actions: ActionManager) -> None:
    seen: list[bool] = [False]

    async def look() -> None:
        while not seen[0]:
            seen[0] = all(action.is_settled for action in await actions.list())

    await asyncio.wait_for(look(), 10)
    await until(lambda: seen[0])


async def test_a_question_without_a_time_of_its_own_ends_soon_after_its_node(actions: ActionManager) -> None:
    settings = LocalSettings(store="memory:", actions=actions)
    untimed = flow((", timeout_seconds: 60", ""), ("error: {", "runtime: {timeout_ms: 90000}\n    error: {"))
    for deadline_s, expected_s in ((None, 90), (50, 50)):
        running = asyncio.create_task(run(untimed, {"order": "o"}, settings=settings, deadline_s=deadline_s))
        action = await the_open_one(actions)
        assert action.expires_at is not None
        lasts_s = (action.expires_at - action.created_at).total_seconds()
        assert lasts_s == pytest.approx(expected_s + LATER_S, abs=5)
        await actions.resolve(action_id=action.action_id, resolution={})
        await running


async def test_the_action_is_in_the_scope_of_the_run_unless_the_flow_names_another(actions: ActionManager) -> None:
    for changes, expected in (((), "tenant-1"), ((("timeout_seconds", "scope: desk, timeout_seconds"),), "desk")):
        settings = LocalSettings(store="memory:", actions=actions)
        async with LocalFlow(flow(*changes), settings=settings) as runner:
            running = asyncio.create_task(runner.run({"order": "o"}, identity=Identity(scope_id="tenant-1")))
            there = actions.for_scope(expected)
            action = await the_open_one(there)
            await there.resolve(action_id=action.action_id, resolution={})
            assert (await running).output == {"answer": {}}


async def test_what_cannot_be_asked_fails_the_node_with_one_sentence(actions: ActionManager) -> None:
    settings = LocalSettings(store="memory:", actions=actions)
    report = await run(
        flow(("timeout_seconds: 60", 'timeout_seconds: "${order}"'), ("{problem.type}", "{problem.reason}")),
        {"order": "soon"},
        settings=settings,
    )
    assert "cannot ask for that: timeout_seconds: " in report.output["late"] and "\n" not in report.output["late"]
    assert await actions.list() == []


async def test_in_a_flows_own_tests_nobody_answers() -> None:
    tested = """
tests:
  - {name: nobody is there, input: {order: o-7}, expect: {outputs: {late: "nobody: timeout"}}}
"""
    [result] = await run_tests(agentflow.loads(REFUND + tested).flow)
    assert result.problems == ()


def test_where_nobody_can_answer_the_operation_says_so() -> None:
    with pytest.raises(OperationFailed, match="nobody can be asked here"):
        bind_operation(
            OperationSpec(op="action.require", args={"type": "confirm"}),
            names=(),
            settings=OperationSettings(),
            resources=OperationResources(),
        )


@pytest.mark.parametrize(
    "change",
    [
        ("timeout_seconds: 60", "timeout_seconds: 0"),
        ("timeout_seconds: 60", "timeout_seconds: soon"),
        ("timeout_seconds: 60", 'scope: "${order}"'),
    ],
)
def test_what_can_never_be_asked_is_a_finding(change: tuple[str, str]) -> None:
    _, findings = agentflow.inspect_flow(REFUND.replace(*change))
    assert [finding.code for finding in findings] == ["bad-argument"]


def test_a_node_that_asks_waits_as_long_as_the_person_has() -> None:
    def timeout_s(*changes: tuple[str, str]) -> float:
        loaded = flow(*changes)
        return node_settings(loaded, loaded.nodes["ask"], context_names=frozenset()).timeout_s

    assert timeout_s() == 65
    assert timeout_s((", timeout_seconds: 60", "")) == 24 * 3600
    assert (
        timeout_s(("    transform:\n      mode", "    runtime: {timeout_ms: 100}\n    transform:\n      mode")) == 0.1
    )
