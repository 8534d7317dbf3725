"""Under `runtime`, `timeout_ms` bounds each attempt of a node and `retries` counts its attempts in all: 1, the default,
means that nothing is retried. A prompt may also have a `fallback` for when all attempts have failed: another role, a
fixed text, or both in this order. `on` says for which failures: timeout, error, validation_fail.
"""

from __future__ import annotations

from typing import Any

import agentflow
from flow_runtime import run
from llmhub_runtime import LLMHub
from llmhub_runtime.sim import SimServer, parse_script

ASK = """
version: "1.0"
metadata: {name: ask}
context: {requires: [x]}
nodes:
  ask:
    inputs: [{name: x, type: string}]
    outputs: [{name: text, type: string}]
    prompt: {role: writer, template: "{{ x }}"}
    runtime: {retries: 3, retry_backoff_ms: 0}
edges:
  - {from: _input.x, to: ask.x}
  - {from: ask.text, to: _output}
"""


def scripted(sim: SimServer, *rules: dict[str, Any]) -> None:
    sim.set_script(parse_script({"rules": list(rules)}))


BROKEN = {"match": {"role": "writer"}, "reply": {"fault": {"kind": "error", "status": 503}}}
STUCK = {"match": {"role": "writer"}, "reply": {"fault": {"kind": "hang"}}}


async def test_a_failed_attempt_is_tried_again(sim: SimServer, hub: LLMHub):
    scripted(sim, {**BROKEN, "match": {"times": 2}}, {"reply": {"answer": "at last"}})
    report = await run(agentflow.loads(ASK).flow, {"x": "hi"}, hub=hub)
    assert report.output == "at last"
    assert report.nodes["ask"].attempts == 3


async def test_retries_counts_all_attempts_so_one_retry_is_no_retry(sim: SimServer, hub: LLMHub):
    scripted(sim, BROKEN)
    once = agentflow.loads(ASK.replace("retries: 3", "retries: 1")).flow
    assert (await run(once, {"x": "hi"}, hub=hub)).error is not None
    assert len(sim.log()) == 1


async def test_every_attempt_has_the_whole_timeout_for_itself(sim: SimServer, hub: LLMHub):
    scripted(sim, {**STUCK, "match": {"times": 1}}, {"reply": {"answer": "at last", "latency_ms": 300}})
    flow = agentflow.loads(ASK.replace("retries: 3,", "retries: 2, timeout_ms: 1000,")).flow
    report = await run(flow, {"x": "hi"}, hub=hub)
    assert report.output == "at last"
    assert report.nodes["ask"].attempts == 2


FALLBACK = """
version: "1.0"
metadata: {name: ask}
context: {requires: [x]}
nodes:
  ask:
    inputs: [{name: x, type: string}]
    outputs: [{name: text, type: string}]
    prompt:
      role: writer
      template: "{{ x }}"
      fallback:
        "on": [error, validation_fail]
        role: spare
        static_response: Please try again later.
    runtime: {timeout_ms: 5000}
edges:
  - {from: _input.x, to: ask.x}
  - {from: ask.text, to: _output}
"""


async def test_a_fallback_role_answers_when_the_first_model_cannot(sim: SimServer, hub: LLMHub):
    scripted(sim, BROKEN, {"match": {"role": "spare"}, "reply": {"answer": "the spare one speaking"}})
    report = await run(agentflow.loads(FALLBACK).flow, {"x": "hi"}, hub=hub)
    assert report.output == "the spare one speaking"


async def test_when_no_model_answers_the_fixed_text_does(sim: SimServer, hub: LLMHub):
    scripted(sim, {"reply": {"fault": {"kind": "error"}}})
    report = await run(agentflow.loads(FALLBACK).flow, {"x": "hi"}, hub=hub)
    assert report.output == "Please try again later."


async def test_a_fallback_is_only_for_the_failures_that_it_lists(sim: SimServer, hub: LLMHub):
    scripted(sim, STUCK)
    flow = agentflow.loads(FALLBACK.replace("timeout_ms: 5000", "timeout_ms: 100")).flow
    report = await run(flow, {"x": "hi"}, hub=hub)
    assert report.error is not None
    assert "longer than 0.1 s" in report.error.message


async def test_a_request_may_have_a_deadline_which_ends_whatever_still_runs(sim: SimServer, hub: LLMHub):
    scripted(sim, STUCK)
    report = await run(agentflow.loads(ASK).flow, {"x": "hi"}, hub=hub, deadline_s=0.2)
    assert report.error is not None
    assert report.error.code == "deadline_exceeded"
    assert report.nodes["ask"].status == "cancelled"
