"""RELIABILITY S14, row 29: no schema and no pattern in it makes a check endless, whatever the value."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentflow.schemas import compile_schema
from support.cost import assert_cheap, cheaply
from support.doors import assert_refused, predictor, refused_flow
from support.flows import ScriptedModels, run_flow, small_flow
from support.payloads import PATTERNS, SCHEMAS


@pytest.mark.parametrize(("schema", "value"), [*PATTERNS, *SCHEMAS], ids=range(len(PATTERNS) + len(SCHEMAS)))
def test_an_expensive_schema_is_refused_or_its_check_is_stopped(schema: Any, value: Any):
    assert_cheap(lambda: compile_schema(schema).check(value))


def held_to(pattern: str):
    """A flow whose request, port and model answer are held to one pattern."""
    schema = json.dumps({"pattern": pattern})
    return small_flow(
        f"""
        ask:
          inputs: [{{name: x, type: string}}]
          outputs: [{{name: answer, type: object, schema: {{properties: {{text: {schema}}}}}}}]
          prompt: {{role: main, template: hi, output_schema: {{properties: {{text: {schema}}}}}}}
        """,
        ["_input.x -> ask.x", "ask.answer -> _output"],
        inputs={"x": {"type": "string", "schema": {"pattern": pattern}}},
    )


REDOS = ["^(a+)+$", "^(a|a)*$", "^(a|aa)+$", "^([a-zA-Z]+)*$", "(x+x+)+y", "^(.*a){9}$"]


@pytest.mark.parametrize("pattern", REDOS)
async def test_a_text_that_would_hang_a_backtracking_engine_is_answered_at_once(pattern: str):
    text = "a" * 40 + "!" if "x" not in pattern else "x" * 40
    async with predictor(held_to(pattern), models=ScriptedModels({})) as desk:
        for value in (text, text * 1_000):
            assert_refused(await cheaply(lambda value=value: desk.predict({"x": value})), 400)
    assert desk.calls

    models = ScriptedModels({"main": [json.dumps({"text": text})]})
    flow = small_flow(
        f"""
        ask:
          outputs: [{{name: answer, type: object}}]
          prompt:
            role: main
            template: hi
            output_schema: {{properties: {{text: {json.dumps({"pattern": pattern})}}}}}
        """,
        ["ask.answer -> _output"],
    )
    report = await cheaply(lambda: run_flow(flow, models=models))
    assert report.error is not None and "does not match the pattern" in report.error.message


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": "(?=a)"},
        {"pattern": r"(a)\1"},
        {"pattern": "(.{0,200}){0,50}x"},
        {"pattern": "a" * 501},
        {"pattern": "("},
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"$ref": "https://example.test/schema"},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "../other.json"},
    ],
    ids=json.dumps,
)
def test_a_schema_that_cannot_be_checked_safely_is_refused_with_the_flow(schema: Any):
    text = f"""\
version: "1.0"
metadata: {{name: desk}}
context: {{requires: [x]}}
inputs: {{x: {{schema: {json.dumps(schema)}}}}}
nodes:
  a:
    inputs: [{{name: x, type: string}}]
    outputs: [{{name: y, type: object}}]
    transform: {{mode: declarative, spec: {{op: io.format_response, args: {{template: hi}}}}}}
edges: [{{from: _input.x, to: a.x}}, {{from: a.y, to: _output}}]
"""
    assert refused_flow(text) == {"bad-schema"}
