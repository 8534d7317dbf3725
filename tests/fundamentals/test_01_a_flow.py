"""A flow is a file of nodes and edges. A node has input ports, output ports and something that it does; an edge
carries a value from a port to a port. `_input` stands for the request, `_output` for the answer.

`agentflow.load` reads and checks a flow, `agentflow.plan` says what it becomes, `flow_runtime.run` runs a request
through it.
"""

from __future__ import annotations

import json
from pathlib import Path

import agentflow
import flow_runtime

GREETING = """
version: "1.0"
metadata: {name: greeting}
context: {requires: [name]}
nodes:
  greet:
    inputs: [{name: name, type: string}]
    outputs: [{name: text, type: string}]
    transform:
      mode: declarative
      spec: {op: io.format_response, args: {template: "Hello ${name}!"}}
edges:
  - {from: _input.name, to: greet.name}
  - {from: greet.text, to: _output}
"""


async def test_a_request_goes_in_and_an_answer_comes_out():
    flow = agentflow.loads(GREETING).flow
    report = await flow_runtime.run(flow, {"name": "Ada"})
    assert report.output == "Hello Ada!"


async def test_a_flow_lives_in_a_file(tmp_path: Path):
    file = tmp_path / "greeting.yaml"
    file.write_text(GREETING)
    assert agentflow.load(file).flow == agentflow.loads(GREETING).flow


async def test_a_flow_may_be_json_as_well_and_is_the_same_flow():
    flow = agentflow.loads(GREETING).flow
    as_json = json.dumps(flow.model_dump(mode="json", by_alias=True, exclude_unset=True))
    assert agentflow.plan(agentflow.loads(as_json).flow).fingerprint == agentflow.plan(flow).fingerprint


async def test_the_report_says_what_became_of_each_node():
    report = await flow_runtime.run(agentflow.loads(GREETING).flow, {"name": "Ada"})
    assert report.error is None
    assert report.nodes["greet"].status == "succeeded"
    assert report.trace_id


async def test_a_flow_that_is_kept_open_answers_many_requests():
    async with flow_runtime.LocalFlow(agentflow.loads(GREETING).flow) as runner:
        answers = [(await runner.run({"name": name})).output for name in ("Ada", "Grace")]
    assert answers == ["Hello Ada!", "Hello Grace!"]


async def test_nodes_start_as_soon_as_their_own_inputs_are_there():
    flow = agentflow.loads("""
version: "1.0"
metadata: {name: side-by-side}
context: {requires: [name]}
nodes:
  left:
    inputs: [{name: name, type: string}]
    outputs: [{name: text, type: string}]
    transform: {mode: declarative, spec: {op: io.format_response, args: {template: "${name} on the left"}}}
  right:
    inputs: [{name: name, type: string}]
    outputs: [{name: text, type: string}]
    transform: {mode: declarative, spec: {op: io.format_response, args: {template: "${name} on the right"}}}
  both:
    inputs: [{name: one, type: string}, {name: other, type: string}]
    outputs: [{name: text, type: string}]
    transform: {mode: declarative, spec: {op: io.format_response, args: {template: "${one}, ${other}"}}}
edges:
  - {from: _input.name, to: left.name}
  - {from: _input.name, to: right.name}
  - {from: left.text, to: both.one}
  - {from: right.text, to: both.other}
  - {from: both.text, to: _output}
""").flow
    started: list[str] = []
    report = await flow_runtime.run(
        flow, {"name": "Ada"}, observe=lambda node, status, at_s: started.append(node) if status is None else None
    )
    assert report.output == "Ada on the left, Ada on the right"
    assert (set(started[:2]), started[2]) == ({"left", "right"}, "both")


def test_a_plan_says_what_will_run_before_anything_does():
    plan = agentflow.plan(agentflow.loads(GREETING).flow)
    assert plan.name == "greeting"
    assert list(plan.graph.nodes) == ["greet"]
    assert plan.settings["greet"].timeout_s == 30
