"""Defects of the specification's own templates that loading and checking must not repeat (IR.md section 3)."""

from __future__ import annotations

import json

import pytest

from agentflow import Flow, FlowInvalid, loads, plan
from agentflow.code_transform import code_kind
from agentflow.templates import compile_template
from support.broken_flows import GOOD, ROLE, TRANSFORM


def codes(text: str) -> list[str]:
    with pytest.raises(FlowInvalid) as caught:
        loads(text)
    return [finding.code for finding in caught.value.findings]


def coded(source: str, state: str = "") -> str:
    return GOOD.replace(TRANSFORM, f"{state}    transform:\n      mode: code\n      spec: {json.dumps(source)}\n")


def test_d11_a_port_named_error_is_no_failure():
    flow = loads(
        GOOD.replace("name: reply", "name: error").replace(".reply", ".error").replace("reply.", "error.")
    ).flow
    wires = plan(flow).graph.wires
    assert [wire.source_port for wire in wires] == ["question", "error", "result"]
    assert not any(wire.from_error for wire in wires)


def test_d11_the_declared_name_of_an_error_port_is_what_counts():
    text = GOOD.replace("    prompt:", "    error: {name: broke}\n    prompt:").replace(
        "edges:\n", "edges:\n  - {from: draft.broke, to: _output}\n"
    )
    [failure, *others] = plan(loads(text).flow).graph.wires
    assert failure.from_error and not any(wire.from_error for wire in others)
    assert codes(text.replace("draft.broke", "draft.error")) == ["unknown-port"]


@pytest.mark.parametrize("key", ["history", "chat_{node.id}", "chat_{reply}"])
def test_d13_session_state_cannot_be_the_same_for_everybody(key: str):
    state = f"    state: {{scope: session, key: '{key}'}}\n"
    assert codes(coded("async def transform(inputs, context, state): return {}", state)) == ["shared-state-key"]


def test_d14_an_explicit_zero_is_kept_or_refused_and_never_overwritten():
    zero = GOOD.replace(ROLE, f"{ROLE}      temperature: 0\n    runtime: {{retry_backoff_ms: 0}}\n")
    settings = plan(loads(zero).flow).settings["draft"]
    assert (settings.temperature, settings.backoff_s) == (0, 0)
    assert codes(GOOD.replace(ROLE, f"{ROLE}    runtime: {{retries: 0}}\n")) == ["bad-value"]
    assert codes(GOOD.replace(ROLE, f"{ROLE}    runtime: {{timeout_ms: 0}}\n")) == ["bad-value"]


@pytest.mark.parametrize("text", ["'''", '"""', "\\", "\\n'''\nimport os\n'''", "'''{{ question }}\\"])
def test_d15_no_quote_or_backslash_can_end_a_prompt(text: str):
    block = "".join(f"        {line}\n" for line in text.split("\n"))
    flow = loads(GOOD.replace('      template: "Answer: {{ question }}"\n', f"      template: |-\n{block}")).flow
    prompt = flow.nodes["draft"].prompt
    assert prompt is not None and prompt.template == text
    rendered = compile_template(prompt.template, {"question"}).render({"question": "why?"})
    assert rendered == text.replace("{{ question }}", "why?")


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("def transform(inputs, context, state): return {}", "sync"),
        ("async def transform(inputs, context, state): return {}", "async"),
        ("def transform(inputs, context, state): return await state.get('a')", "async"),
        ("def transform(inputs, context, state):\n  async with a: pass", "async"),
        ("def transform(inputs, context, state):\n  async for a in b: pass", "async"),
        ("def transform(inputs, context, state): return {k: [x async for x in v] for k, v in a}", "async"),
        ("def transform(i, c, s):\n  async def inner(): await c\n  return {}", "sync"),
        ("def transform(i, c, s):\n  class Inner:\n    async def go(self): await c\n  return {}", "sync"),
        ("import a\nX = 1\ndef helper(): pass\n\ndef transform(*all): return {}", "sync"),
        ("def transform(inputs, context, state, more=1, *, last=2): return {}", "sync"),
        ("def transform(): pass\nasync def transform(i, c, s): return {}", "async"),
    ],
)
def test_d16_sync_and_async_transforms_are_told_apart(source: str, kind: str):
    assert code_kind(source) == kind
    assert loads(coded(source)).findings == ()


@pytest.mark.parametrize(
    "source",
    [
        "def transform(inputs, context): return {}",
        "def transform(inputs, context, state, more): return {}",
        "def transform(inputs, context, state, *, more): return {}",
        "transform = 3",
        "if True:\n  def transform(i, c, s): return {}",
        "",
    ],
)
def test_d16_code_that_cannot_be_called_is_refused(source: str):
    assert codes(coded(source)) == ["bad-code"]


def test_d17_an_edge_is_read_and_written_with_from():
    flow = loads(GOOD).flow
    assert flow.edges[0].source == "_input.question"
    assert flow.model_dump(by_alias=True)["edges"][0]["from"] == "_input.question"
    assert Flow.model_validate(flow.model_dump(by_alias=True)) == flow
    assert codes(GOOD.replace("{from: _input.question", "{source: _input.question")) == ["missing-key", "unknown-key"]


@pytest.mark.parametrize("name", ["simple_enrichment", "returns-desk", "Desk.v2"])
def test_d21_a_flow_may_have_a_name_that_kubernetes_would_refuse(name: str):
    assert loads(GOOD.replace("name: desk", f"name: {name}")).flow.metadata.name == name


@pytest.mark.parametrize("name", ["../desk", "a/b", "/desk", "..", "a\\b", "a%2eb", "a b", "x" * 64])
def test_a_name_never_leads_out_of_a_folder(name: str):
    assert codes(GOOD.replace("name: desk", f"name: '{name}'")) == ["bad-value"]
