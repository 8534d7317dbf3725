"""Branching is on edges. An edge with a `condition` carries its value only when the condition holds; an edge that
carries nothing is dead. A node runs when each of its inputs has a live edge, and is skipped otherwise; a skipped node's
own edges are dead as well. An `optional` input does not insist.
"""

from __future__ import annotations

import agentflow
from flow_runtime import run

BRANCH = """
version: "1.0"
metadata: {name: branch}
context: {requires: [risk], optional: [note]}
inputs: {risk: {type: number}, note: {type: string}}
nodes:
  rate:
    inputs: [{name: risk, type: number}]
    outputs: [{name: score, type: number}]
    transform: {mode: declarative, spec: {op: io.format_response, args: {template: "${risk}"}}}
  ticket:
    inputs: [{name: score, type: number}]
    outputs: [{name: text, type: string}]
    transform: {mode: declarative, spec: {op: io.format_response, args: {template: "a person looks at ${score}"}}}
  answer:
    inputs: [{name: score, type: number}, {name: note, type: string, optional: true}]
    outputs: [{name: text, type: string}]
    transform: {mode: declarative, spec: {op: io.format_response, args: {template: "fine, note: ${note}"}}}
  thank:
    inputs: [{name: text, type: string}]
    outputs: [{name: text, type: string}]
    transform: {mode: declarative, spec: {op: io.format_response, args: {template: "${text}. Thank you!"}}}
edges:
  - {from: _input.risk, to: rate.risk}
  - {from: rate.score, to: ticket.score, condition: "score >= 0.7"}
  - {from: rate.score, to: answer.score, condition: "score < 0.7"}
  - {from: _input.note, to: answer.note}
  - {from: ticket.text, to: _output}
  - {from: answer.text, to: thank.text}
  - {from: thank.text, to: _output}
"""


async def test_a_condition_decides_which_branch_runs_and_the_other_one_is_skipped():
    report = await run(agentflow.loads(BRANCH).flow, {"risk": 0.9})
    assert report.output == "a person looks at 0.9"
    assert {name: node.status for name, node in report.nodes.items()} == {
        "rate": "succeeded",
        "ticket": "succeeded",
        "answer": "skipped",
        "thank": "skipped",
    }


async def test_the_answer_comes_from_the_branch_that_ran():
    report = await run(agentflow.loads(BRANCH).flow, {"risk": 0.1, "note": "hurry"})
    assert report.output == "fine, note: hurry. Thank you!"


async def test_an_optional_input_that_nothing_feeds_is_none_and_its_node_runs():
    report = await run(agentflow.loads(BRANCH).flow, {"risk": 0.1})
    assert report.output == "fine, note: None. Thank you!"


async def test_a_condition_may_look_at_the_request():
    flow = agentflow.loads(BRANCH.replace("score >= 0.7", "score >= 0.7 or context.note == 'urgent'")).flow
    assert (await run(flow, {"risk": 0.71, "note": "x"})).output == "a person looks at 0.71"


async def test_when_no_edge_leads_to_an_answer_the_run_says_so():
    flow = agentflow.loads(BRANCH.replace("score < 0.7", "score < 0")).flow
    report = await run(flow, {"risk": 0.1})
    assert report.error is not None
    assert report.error.code == "no_output"


async def test_two_branches_may_meet_in_one_input_because_only_one_of_them_is_live():
    flow = agentflow.loads(
        BRANCH.replace("{from: ticket.text, to: _output}", "{from: ticket.text, to: thank.text}")
    ).flow
    assert (await run(flow, {"risk": 0.9})).output == "a person looks at 0.9. Thank you!"
    assert (await run(flow, {"risk": 0.1, "note": "-"})).output == "fine, note: -. Thank you!"
