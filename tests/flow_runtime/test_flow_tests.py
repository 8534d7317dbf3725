"""The tests that a flow carries: what passes, what fails, and what is said about the difference."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow import load
from agentflow.differences import MAX_LINES, differences
from flow_runtime.flow_tests import FlowTestResult, run_tests
from support.flows import small_flow

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "flows").glob("*.yaml"))
NODES = """
ask:
  inputs: [{name: x, type: string}]
  outputs: [{name: answer, type: object}]
  error: {name: broke}
  prompt:
    template: "{{ x }}"
    role: main
    output_schema: {type: object}
    fallback: {on: timeout, role: spare}
  runtime: {retries: 3, retry_backoff_ms: 20000}
loud:
  inputs: [{name: answer, type: object}]
  outputs: [{name: out, type: string}]
  transform: {mode: declarative, spec: {op: io.format_response, args: {template: "${answer.text}!"}}}
sorry:
  inputs: [{name: problem, type: object}]
  outputs: [{name: out, type: string}]
  transform: {mode: declarative, spec: {op: io.format_response, args: {template: "sorry: ${problem.type}"}}}
"""
EDGES = [
    "_input.x -> ask.x",
    "ask.answer -> loud.answer",
    "loud.out -> _output",
    "ask.broke -> sorry.problem",
    "sorry.out -> _output",
]


async def result_of(models: dict[str, Any], expect: dict[str, Any], request: Any = None) -> FlowTestResult:
    test = {"name": "t", "input": {"x": "hi"} if request is None else request, "models": models, "expect": expect}
    [result] = await run_tests(small_flow(NODES, EDGES, tests=[test]))
    return result


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
async def test_the_tests_of_the_example_flows_pass(path: Path):
    features = f"local:{path.parent.parent / 'features'}"
    results = await run_tests(load(path).flow, feature_store=features, embedder="llm.embed")
    assert len(results) >= 3
    assert {result.name: result.problems for result in results if not result.passed} == {}


@pytest.mark.parametrize(
    ("models", "expect"),
    [
        ({"main": {"text": "yes"}}, {"outputs": "yes!", "skipped": ["sorry"], "failed": [], "calls": {"main": 1}}),
        ({"main": '{"text": "yes"}'}, {"outputs": "yes!"}),
        ({"main": ["no JSON", {"error": "error"}, {"text": "third"}]}, {"outputs": "third!", "calls": {"main": 3}}),
        ({"main": {"error": "timeout"}, "spare": {"text": "b"}}, {"outputs": "b!", "calls": {"main": 3, "spare": 1}}),
        ({"main": {"error": "error"}}, {"outputs": "sorry: error", "failed": ["ask"], "skipped": ["loud"]}),
        ({"main": {"more": 1}}, {"error": "node_failed", "failed": ["loud"]}),
        ({}, {"error": "bad_input", "calls": {"main": 0}}),
    ],
)
async def test_scripts_and_what_comes_of_them(models: dict[str, Any], expect: dict[str, Any]):
    began = time.perf_counter()
    result = await result_of(models, expect, request={} if expect.get("error") == "bad_input" else None)
    assert result.problems == ()
    assert time.perf_counter() - began < 10, "the pauses between attempts are not waited for"


@pytest.mark.parametrize(
    ("models", "expect", "problem"),
    [
        ({"main": {"text": "a"}}, {"outputs": "b!"}, 'outputs: expected "b!", got "a!"'),
        ({"main": {"text": "a"}}, {"error": "node_failed"}, "error: expected node_failed, got no error"),
        ({"main": {"more": 1}}, {}, "error: expected no error, got node_failed (node 'loud' failed"),
        ({"main": {"text": "a"}}, {"skipped": []}, "skipped: 'sorry' was not expected"),
        ({"main": {"text": "a"}}, {"failed": ["ask"]}, "failed: expected 'ask', which was succeeded"),
        ({"main": {"text": "a"}}, {"calls": {"spare": 1}}, "calls.spare: expected 1, got 0"),
        ({}, {"outputs": "sorry: error"}, "models: 'main' was asked, but the test has no answer for it"),
        ({"main": ["x"]}, {"outputs": "sorry: error"}, "models: 'main' was asked 2 times, but has 1 answers"),
    ],
)
async def test_what_differs_is_said_in_a_sentence(models: dict[str, Any], expect: dict[str, Any], problem: str):
    problems = (await result_of(models, expect)).problems
    assert any(line.startswith(problem) for line in problems), problems


async def test_tool_calls_are_scripted_like_answers_and_each_round_counts_as_a_call():
    nodes = """
    ask:
      inputs: [{name: x, type: string}]
      outputs: [{name: answer, type: object}]
      prompt: {role: main, template: "{{ x }}", output_schema: {type: object}, tools: [{name: clock, maps_to: clock}]}
    clock:
      outputs: [{name: time, type: string}]
      prompt: {role: spare, template: "What time is it?"}
    """
    calls = [{"name": "clock"}, {"name": "clock", "arguments": "no JSON"}, {"name": "nobody", "arguments": {"a": 1}}]
    answers = [{"tool_calls": calls}, {"tool_calls": [{"name": "clock"}]}, {"n": 1}]
    expect = {"outputs": {"n": 1}, "calls": {"main": 3, "spare": 2}}
    test = {"name": "t", "input": {"x": "a"}, "models": {"main": answers, "spare": "noon"}, "expect": expect}
    [result] = await run_tests(small_flow(nodes, ["_input.x -> ask.x", "ask.answer -> _output"], tests=[test]))
    assert result.problems == ()


async def test_tests_do_not_see_each_others_state():
    nodes = """
    count:
      inputs: [{name: x, type: string}]
      outputs: [{name: n, type: number}]
      state: {scope: session, key: "c_{context.session_id}", backend: store}
      transform:
        mode: code
        spec: |
          async def transform(inputs, context, state):
              return {"n": await state.update("n", lambda n: n + 1, default=0)}
    """
    test = {"input": {"x": "a", "session_id": "s"}, "expect": {"outputs": 1}}
    tests = [{"name": name, **test} for name in ("a", "b")]
    flow = small_flow(
        nodes, ["_input.x -> count.x", "count.n -> _output"], context={"optional": ["session_id"]}, tests=tests
    )
    assert [result.problems for result in await run_tests(flow)] == [(), ()]


def test_differences_name_the_place():
    assert differences({"a": [1, {"b": 2}], "c": 1}, {"a": [1, {"b": 3}, 4], "d": 1}, "outputs") == [
        "outputs.a[1].b: expected 2, got 3",
        "outputs.a: expected 2 elements, got 3",
        "outputs.c: expected 1, got nothing",
        "outputs.d: expected nothing, got 1",
    ]
    assert differences(1, True, "x") == ["x: expected 1, got true"]
    assert differences(1, 1.0, "x") == []
    many = differences(list(range(100)), [None] * 100, "x")
    assert len(many) == MAX_LINES + 1 and many[-1] == "... and more"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=8,
)


@given(one=JSON, other=JSON)
def test_there_are_no_differences_exactly_between_equal_values(one: Any, other: Any):
    assert differences(one, one, "x") == []
    assert bool(differences(one, other, "x")) == (repr(sorted_keys(one)) != repr(sorted_keys(other)))


def sorted_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: sorted_keys(value[key]) for key in sorted(value)}
    return [sorted_keys(item) for item in value] if isinstance(value, list) else value
