"""A node that fails ends the run, unless the flow handles it. A node that declares an `error` port turns its failure
into a value, `{reason, node, type, attempts}`, which edges carry to a handler like any other value.
"""

from __future__ import annotations

import agentflow
from flow_runtime import run

LOOK_UP = """
version: "1.0"
metadata: {name: look-up}
context: {requires: [account]}
nodes:
  look_up:
    inputs: [{name: account, type: string}]
    outputs: [{name: owner, type: string}]
    transform:
      mode: code
      spec: |
        async def transform(inputs, context, state):
            return {"owner": {"a-1": "Ada"}[inputs["account"]]}
edges:
  - {from: _input.account, to: look_up.account}
  - {from: look_up.owner, to: _output}
"""

HANDLED = """
version: "1.0"
metadata: {name: look-up}
context: {requires: [account]}
nodes:
  look_up:
    inputs: [{name: account, type: string}]
    outputs: [{name: owner, type: string}]
    error: {name: not_found}
    transform:
      mode: code
      spec: |
        async def transform(inputs, context, state):
            return {"owner": {"a-1": "Ada"}[inputs["account"]]}
  greet:
    inputs: [{name: owner, type: string}]
    outputs: [{name: text, type: string}]
    transform: {mode: declarative, spec: {op: io.format_response, args: {template: "Hello ${owner}"}}}
  apologise:
    inputs: [{name: problem, type: object}]
    outputs: [{name: text, type: string}]
    transform: {mode: declarative, spec: {op: io.format_response, args: {template: "Sorry: ${problem.reason}"}}}
edges:
  - {from: _input.account, to: look_up.account}
  - {from: look_up.owner, to: greet.owner}
  - {from: look_up.not_found, to: apologise.problem}
  - {from: greet.text, to: _output}
  - {from: apologise.text, to: _output}
"""


async def test_a_failure_that_nobody_handles_ends_the_run_and_names_its_node():
    report = await run(agentflow.loads(LOOK_UP).flow, {"account": "a-2"})
    assert report.output is None
    assert report.error is not None
    assert (report.error.code, report.error.node) == ("node_failed", "look_up")
    assert "KeyError" in report.error.message


async def test_with_an_error_port_a_failure_is_a_value_that_a_handler_takes():
    report = await run(agentflow.loads(HANDLED).flow, {"account": "a-2"})
    assert report.error is None
    assert report.output.startswith("Sorry: the transform raised KeyError: a-2")


async def test_a_failed_nodes_normal_outputs_are_dead():
    report = await run(agentflow.loads(HANDLED).flow, {"account": "a-2"})
    assert report.nodes["look_up"].status == "failed"
    assert report.nodes["greet"].status == "skipped"


async def test_when_nothing_fails_the_handler_is_skipped():
    report = await run(agentflow.loads(HANDLED).flow, {"account": "a-1"})
    assert report.output == "Hello Ada"
    assert report.nodes["apologise"].status == "skipped"


async def test_the_error_says_what_happened_where_and_after_how_many_attempts():
    to_answer = HANDLED.replace("{from: apologise.text, to: _output}", "{from: look_up.not_found, to: _output}")
    report = await run(agentflow.loads(to_answer).flow, {"account": "a-2"})
    assert set(report.output) == {"reason", "node", "type", "attempts"}
    assert (report.output["node"], report.output["type"], report.output["attempts"]) == ("look_up", "error", 1)


def test_an_error_port_that_leads_nowhere_is_a_warning():
    unwired = HANDLED.replace("  - {from: look_up.not_found, to: apologise.problem}\n", "")
    _, findings = agentflow.inspect_flow(unwired)
    assert "unwired-error" in {finding.code for finding in findings}
