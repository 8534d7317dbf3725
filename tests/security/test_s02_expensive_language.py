"""RELIABILITY S2: no template, expression or placeholder costs more than 50 ms or 16 MB, to check or to run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentflow import inspect_flow
from agentflow.expressions import compile_expression
from agentflow.placeholders import compile_args
from agentflow.templates import compile_template
from support.cost import assert_cheap
from support.payloads import BIG, EXPRESSIONS, PLACEHOLDERS, TEMPLATES

FLOW = """\
version: "1.0"
metadata: {name: costly}
context: {requires: [xs]}
nodes:
  one:
    inputs: [%s]
    outputs: [{name: out, type: object}]
%s
edges: [{from: _input.xs, to: one.xs}, {from: one.out, to: _output%s}]
"""
PORTS = ", ".join(f"{{name: {name}, type: array, optional: {str(name != 'xs').lower()}}}" for name in BIG)


def flow_with(work: str, condition: str = "") -> str:
    return FLOW % (PORTS, work, condition)


def short(source: str) -> str:
    return f"{source[:40]}({len(source)})"


@pytest.mark.parametrize("source", TEMPLATES, ids=short)
def test_an_expensive_template_is_refused_or_stopped(source: str):
    text = flow_with(f"    prompt: {{role: main, template: {json.dumps(source)}}}")
    assert_cheap(lambda: inspect_flow(text), mib=None)
    assert_cheap(lambda: compile_template(source, BIG.keys()).render(BIG))


@pytest.mark.parametrize("source", EXPRESSIONS, ids=short)
def test_an_expensive_expression_is_refused_or_stopped(source: str):
    spec = "    transform: {mode: declarative, spec: {op: io.format_response, args: {template: hi}}}"
    text = flow_with(spec, f", condition: {json.dumps(source)}")
    assert_cheap(lambda: inspect_flow(text), mib=None)
    assert_cheap(lambda: compile_expression(source, BIG.keys()).evaluate(BIG))


@pytest.mark.parametrize(
    "written", PLACEHOLDERS, ids=lambda written: short(written) if isinstance(written, str) else "nested"
)
def test_an_expensive_placeholder_is_refused_or_stopped(written: Any):
    values = {**BIG, "x": BIG["deep"]}
    assert_cheap(lambda: compile_args(written, values.keys()).resolve(values))
