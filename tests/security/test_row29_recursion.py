"""RELIABILITY row 29: nothing that nests or calls itself goes deeper than its limit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentflow import inspect_flow
from support.cost import assert_cheap, cheaply
from support.doors import PLAIN, assert_refused, predictor, refused_flow
from support.flows import ScriptedModels, run_flow, small_flow

DEEP = 100_000
BODIES = {
    "unclosed": b"[" * DEEP,
    "arrays": b"[" * DEEP + b"]" * DEEP,
    "objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "in instances": b'{"instances": [{"x": ' + b"[" * 5_000 + b"]" * 5_000 + b"}]}",
    "hidden behind strings": b'{"inputs": [' + b'["\\\\", "]", ' * 65 + b"1" + b"]" * 65 + b"]}",
    "in a tensor": json.dumps(
        {"inputs": [{"name": "request", "shape": [1], "datatype": "BYTES", "data": ["[" * DEEP]}]}
    ).encode(),
    "in the data": b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": '
    + b"[" * 5_000
    + b"]" * 5_000
    + b"}]}",
}


@pytest.mark.parametrize("content_type", ["application/json", "application/octet-stream", "text/plain"])
async def test_a_deep_body_is_refused_within_50_ms(content_type: str):
    async with predictor(PLAIN) as desk:
        for path in ("/v1/models/m:predict", "/v2/models/m/infer"):
            for body in BODIES.values():
                reply = await cheaply(lambda path=path, body=body: desk.post(path, body, content_type=content_type))
                assert_refused(reply, 400)
    assert desk.calls == []


async def test_a_model_that_answers_deep_json_fails_its_node_and_nothing_else():
    flow = small_flow(
        """
        ask:
          outputs: [{name: answer, type: object}]
          prompt: {role: main, template: hi, output_schema: {}}
        """,
        ["ask.answer -> _output"],
    )
    for text in ("[" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP, "1e999", "NaN", "9" * 10_000):
        models = ScriptedModels({"main": [text]})
        report = await cheaply(lambda models=models: run_flow(flow, models=models))
        assert report.error is not None and report.error.code == "node_failed"
        assert "the model's answer is not JSON" in report.error.message, report.error


def node(name: str, inner: str) -> str:
    """A flow whose only node is the flow `inner`, on one line."""
    ports = "inputs: [{name: x, type: object}], outputs: [{name: y, type: object}]"
    return (
        f'{{version: "1.0", metadata: {{name: {name}}}, context: {{requires: [x]}}, '
        f"nodes: {{again: {{type: subflow, {ports}, flow: {inner}}}}}, "
        "edges: [{from: _input.x, to: again.x}, {from: again.y, to: _output}]}"
    )


@pytest.mark.parametrize(("levels", "code"), [(9, "too-many-subflows"), (14, "too-many-subflows"), (1_000, "too-deep")])
def test_a_flow_nested_in_flows_is_refused(levels: int, code: str):
    text = "'a'"
    for _ in range(levels):
        text = node("n", text)
    assert refused_flow(text) == {code}


@pytest.mark.parametrize("loop", [["a.yaml"], ["a.yaml", "b.yaml"], ["a.yaml", "b.yaml", "c.yaml"]])
def test_a_subflow_that_calls_itself_is_refused_with_the_circle_and_its_place(tmp_path: Path, loop: list[str]):
    for name, following in zip(loop, [*loop[1:], loop[0]], strict=True):
        (tmp_path / name).write_text(node("n", following))
    assert_cheap(lambda: inspect_flow(tmp_path / "a.yaml"), mib=None)
    [finding] = [each for each in inspect_flow(tmp_path / "a.yaml")[1] if each.severity == "error"]
    assert finding.code == "subflow-recursion" and " -> ".join([*loop, "a.yaml"]) in finding.message
    assert finding.place is not None and Path(finding.place.file).name == loop[-1]
