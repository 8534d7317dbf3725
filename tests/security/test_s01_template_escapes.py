"""RELIABILITY S1: no prompt template reaches Python, and no value of a request becomes a template."""

from __future__ import annotations

import json

import pytest

from agentflow import FlowInvalid, loads
from support.cost import assert_cheap
from support.doors import errors_of
from support.flows import ScriptedModels, run_flow
from support.payloads import ESCAPES

FLOW = """\
version: "1.0"
metadata: {name: asking}
context: {requires: [x, xs]}
nodes:
  ask:
    inputs: [{name: x, type: string}, {name: xs, type: array}]
    outputs: [{name: answer, type: string}]
    prompt: {role: main, template: %s}
edges:
  - {from: _input.x, to: ask.x}
  - {from: _input.xs, to: ask.xs}
  - {from: ask.answer, to: _output}
"""


def asking(template: str) -> str:
    return FLOW % json.dumps(template)


@pytest.mark.parametrize("source", ESCAPES)
async def test_an_escape_is_refused_with_the_flow_or_fails_before_the_model_is_called(source: str):
    text = asking(source)
    assert_cheap(lambda: loads(text), mib=None)
    if codes := {finding.code for finding in errors_of(text)}:
        assert codes == {"bad-template"} or codes == {"unknown-context-field"}
        return
    models = ScriptedModels({"main": ["never"]})
    report = await run_flow(loads(text).flow, {"x": "text", "xs": [1, 2]}, models=models)
    assert report.error is not None and report.error.code == "node_failed"
    assert "built-in" not in report.error.message and "<" not in report.error.message
    assert models.calls == []


@pytest.mark.parametrize("source", [*ESCAPES, "{{ 7 * 7 }}", "{% raw %}", "${context.x}", "{{ x }}"])
async def test_template_text_in_a_request_reaches_the_model_as_it_is(source: str):
    models = ScriptedModels({"main": ["fine"]})
    report = await run_flow(loads(asking("<{{ x }}>")).flow, {"x": source, "xs": []}, models=models)
    assert report.error is None
    assert [messages[-1]["content"] for _, messages, _ in models.calls] == [f"<{source}>"]


def test_a_template_in_a_system_prompt_or_a_fallback_is_plain_text_or_refused():
    for field in ("system", "fallback"):
        value = '"{{ x.__class__ }}"' if field == "system" else "{on: [error], static_response: '{{ x.__class__ }}'}"
        text = asking("hi").replace("role: main,", f"role: main, {field}: {value},")
        try:
            prompt = loads(text).flow.nodes["ask"].prompt
        except FlowInvalid:
            continue
        assert prompt is not None
