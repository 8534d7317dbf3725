"""A subflow's node: its ports are the inner flow's request and answer, and its failures name the node inside."""

from __future__ import annotations

import asyncio
import textwrap
from typing import Any

import pytest

from agentflow import plan
from agentflow.ir import Node
from agentflow.settings import roles_of
from flow_runtime import LocalFlow
from flow_runtime.errors import ModelFailed
from runtime_core.context import Identity
from support.flows import ScriptedModels, run_flow, small_flow

INNER = """
version: "1.0"
metadata: {name: greeting}
context: {requires: [name], optional: [tone, session_id]}
inputs: {tone: {default: kind}}
defaults: {role: %(role)s}
nodes:
  ask:
    inputs: [{name: name, type: string}, {name: tone, type: string}]
    outputs: [{name: text, type: string}]
    prompt: {template: "{{ tone }} {{ name }}%(template)s"}
    runtime: {%(runtime)s}
edges:
  - {from: _input.name, to: ask.name}
  - {from: _input.tone, to: ask.tone}
  - {from: ask.text, to: %(to)s}
"""
NODE = """
greet:
  type: subflow
  inputs: [{name: name, type: %(type)s}, {name: tone, type: string, optional: true}]
  outputs: [{name: text, type: %(out)s}]
  %(node)s
  flow:
"""
EDGES = ["_input.x -> greet.name", "_input.tone -> greet.tone", "greet.text -> _output"]


def greeting(
    role="main", template="", runtime="", to="_output.text", type="string", out="string", node="", **flow: Any
):
    inner = INNER % {"role": role, "template": template, "runtime": runtime, "to": to}
    nodes = NODE % {"type": type, "out": out, "node": node} + textwrap.indent(inner, "    ")
    edges = flow.pop("edges", EDGES)
    return small_flow(flow.pop("more", "") + nodes, edges, context={"optional": ["tone"]}, **flow)


async def echo(messages: Any) -> str:
    await asyncio.sleep(0)
    return messages[-1]["content"]


async def greet(flow: Any, request: dict[str, Any] | None = None, answers: Any = (echo,)):
    models = ScriptedModels({"main": answers})
    report = await run_flow(flow, request or {"x": "Ada"}, models=models)
    return report, models


async def test_inputs_make_the_request_and_outputs_come_from_the_answer():
    report, _ = await greet(greeting(), {"x": "Ada", "tone": "warm"})
    assert report.output == "warm Ada"
    assert set(report.nodes) == {"greet"}


async def test_an_input_without_a_value_leaves_the_field_to_the_flows_default():
    report, _ = await greet(greeting())
    assert report.output == "kind Ada"


@pytest.mark.parametrize(
    ("to", "out", "output"), [("_output", "string", "kind Ada"), ("_output.a", "object", {"a": "kind Ada"})]
)
async def test_a_whole_answer_goes_to_the_only_port(to: str, out: str, output: Any):
    report, _ = await greet(greeting(to=to, out=out))
    assert report.output == output


async def test_trace_event_time_and_identity_are_those_of_the_run():
    flow = greeting(template="|{{ context.trace_id }}|{{ context.event_time }}")
    async with LocalFlow(flow, models=ScriptedModels({"main": [echo]})) as runner:
        report = await runner.run(
            {"x": "Ada", "event_time": "2026-01-01T00:00:00+00:00"},
            trace_id="trace-1",
            identity=Identity(scope_id="t1"),
        )
    assert report.output == "kind Ada|trace-1|2026-01-01T00:00:00+00:00"


async def test_a_failure_names_the_node_inside_and_keeps_its_kind():
    flow = greeting(runtime="timeout_ms: 50")

    async def slow(messages: Any) -> str:
        await asyncio.sleep(30)
        return "late"

    report, _ = await greet(flow, answers=[slow])
    assert report.error.code == "node_failed" and report.error.node == "greet"
    assert "in the flow 'greeting': node 'ask' failed: it took longer than 0.05 s" in report.error.message
    assert report.nodes["greet"].error["type"] == "timeout"


async def test_when_the_nodes_own_time_is_up_the_node_inside_is_named_too():
    async def slow(messages: Any) -> str:
        await asyncio.sleep(30)
        return "late"

    report, _ = await greet(greeting(node="runtime: {timeout_ms: 200}"), answers=[slow])
    assert "nodes were running: 'ask'" in report.error.message
    assert report.nodes["greet"].error["type"] == "timeout"


async def test_the_node_has_attempts_of_its_own():
    flow = greeting(node="runtime: {retries: 2, retry_backoff_ms: 0}")
    report, _ = await greet(flow, answers=[ModelFailed("down"), echo])
    assert report.output == "kind Ada"
    assert report.nodes["greet"].attempts == 2


async def test_with_for_each_every_element_is_a_run():
    flow = greeting(type="array", out="array", node="for_each: {input: name}")
    report, _ = await greet(flow, {"x": ["Ada", "Bob"]})
    assert report.output == ["kind Ada", "kind Bob"]


async def test_values_are_cast_at_the_border_as_on_an_edge():
    inner = """
    version: "1.0"
    metadata: {name: n}
    context: {requires: [a]}
    inputs: {a: {type: string}}
    outputs: {b: {type: number}}
    nodes:
      size:
        inputs: [{name: a, type: string}]
        outputs: [{name: b, type: number}]
        transform:
          mode: declarative
          spec: {op: transform.reduce, args: {input: ["${a}"], initial: 0, expression: len(item)}}
    edges: [{from: _input.a, to: size.a}, {from: size.b, to: _output.b}]
    """
    node = """
    len:
      type: subflow
      inputs: [{name: a, type: number}]
      outputs: [{name: b, type: string}]
      flow:
    """
    text = textwrap.dedent(node) + textwrap.indent(textwrap.dedent(inner), "    ")
    report = await run_flow(small_flow(text, ["_input.x -> len.a", "len.b -> _output"]), {"x": 1234})
    assert report.output == "4"


STATEFUL = """
count:
  type: subflow
  inputs: [{name: x, type: array}]
  outputs: [{name: n, type: array}]
  for_each: {input: x}
  flow:
    version: "1.0"
    metadata: {name: counter}
    context: {requires: [x]}
    nodes:
      count:
        inputs: [{name: x, type: number}]
        outputs: [{name: n, type: number}]
        state: {scope: request}
        transform:
          mode: code
          spec: |
            async def transform(inputs, context, state):
                return {"n": await state.update("n", lambda n: n + 1, default=0)}
    edges: [{from: _input.x, to: count.x}, {from: count.n, to: _output.n}]
"""


async def test_every_run_of_a_subflow_has_its_own_request_state():
    report = await run_flow(small_flow(STATEFUL, ["_input.x -> count.x", "count.n -> _output"]), {"x": [1, 2, 3]})
    assert report.output == [1, 1, 1]


async def test_a_subflow_that_acts_makes_its_node_act():
    from agentflow.planning import acts

    flow = small_flow(STATEFUL, ["_input.x -> count.x", "count.n -> _output"])
    assert acts(flow.nodes["count"]) and not acts(greeting().nodes["greet"])


async def test_a_node_is_whole_when_it_is_sent_to_another_process():
    flow = greeting()
    node = flow.nodes["greet"]
    sent = Node.model_validate(node.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    assert sent == node
    assert roles_of(flow) == {"main"}
    assert plan(flow).fingerprint != plan(greeting(template="!")).fingerprint


async def test_cancelling_the_run_cancels_the_nodes_inside():
    entered, left = asyncio.Event(), asyncio.Event()

    async def hang(messages: Any) -> str:
        entered.set()
        try:
            await asyncio.sleep(30)
        finally:
            left.set()
        return "never"

    task = asyncio.create_task(greet(greeting(), answers=[hang]))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left.is_set()
