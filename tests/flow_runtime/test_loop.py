"""`loop`: a node runs again on its own outputs until an expression over them holds."""

from __future__ import annotations

from typing import Any

import pytest

from flow_runtime.errors import ModelFailed
from support.flows import ScriptedModels, run_flow, small_flow

COUNT = """
count:
  inputs: [{name: n, type: number}, {name: by, type: number, optional: true}]
  outputs: [{name: n, type: number}, {name: seen, type: array}]
  loop: {until: "%s"%s}
  transform:
    mode: code
    spec: |
      async def transform(inputs, context, state):
          return {"n": inputs["n"] + (inputs["by"] or 1), "seen": [inputs["n"]]}
"""
EDGES = ["_input.x -> count.n", "_input.by -> count.by", "count.n -> _output.n", "count.seen -> _output.seen"]


def counting(until: str, more: str = ""):
    return small_flow(COUNT % (until, more), EDGES, context={"optional": ["by", "goal"]})


async def test_outputs_feed_the_inputs_of_their_names_and_the_rest_stays():
    report = await run_flow(counting("n >= 7"), {"x": 1, "by": 2})
    assert report.output == {"n": 7, "seen": [5]}
    assert report.nodes["count"].attempts == 3


async def test_until_sees_the_request_and_one_round_may_be_enough():
    report = await run_flow(counting("n >= context.goal"), {"x": 1, "goal": 2})
    assert report.output == {"n": 2, "seen": [1]}


async def test_rounds_that_are_used_up_are_a_failure_that_names_them():
    report = await run_flow(counting("n > 100", ", max_rounds: 4"), {"x": 1})
    assert report.error.code == "node_failed"
    assert "`n > 100` did not hold within 4 rounds (max_rounds: 4)" in report.error.message
    assert report.nodes["count"].attempts == 4
    assert report.nodes["count"].error["type"] == "error"


async def test_an_until_that_cannot_be_evaluated_is_a_failure():
    report = await run_flow(counting("seen[3] > 1"), {"x": 1})
    assert report.error.code == "node_failed"
    assert "in round 1" in report.error.message and "seen[3]" in report.error.message


PROMPT = """
polish:
  inputs: [{name: text, type: string}]
  outputs: [{name: text, type: string}]
  loop: {until: "'done' in text"}
  prompt: {template: "{{ text }}", role: main}
  runtime: {retries: 2, retry_backoff_ms: 0}
"""
POLISHED = ["_input.x -> polish.text", "polish.text -> _output"]


async def test_every_round_has_its_own_attempts():
    models = ScriptedModels({"main": [ModelFailed("down"), "better", ModelFailed("down"), "done"]})
    report = await run_flow(small_flow(PROMPT, POLISHED), {"x": "draft"}, models=models)
    assert report.output == "done"
    assert report.nodes["polish"].attempts == 4
    assert [messages[-1]["content"] for _, messages, _ in models.calls] == ["draft", "draft", "better", "better"]


async def test_a_round_that_fails_is_named_with_its_kind():
    models = ScriptedModels({"main": ["better", ModelFailed("down")]})
    report = await run_flow(small_flow(PROMPT, POLISHED), {"x": "draft"}, models=models)
    assert "in round 2: down" in report.error.message
    assert report.nodes["polish"].error["attempts"] == 3


@pytest.mark.parametrize("elements", [[1, 5, 9], []])
async def test_with_for_each_every_element_goes_round_on_its_own(elements: list[Any]):
    flow = small_flow(
        """
        count:
          inputs: [{name: n, type: array}]
          outputs: [{name: n, type: array}, {name: rounds, type: array, optional: true}]
          for_each: {input: n, on_item_error: collect}
          loop: {until: "n >= 6", max_rounds: 3}
          transform:
            mode: code
            spec: |
              async def transform(inputs, context, state):
                  return {"n": inputs["n"] + 1}
        """,
        ["_input.x -> count.n", "count.n -> _output"],
    )
    report = await run_flow(flow, {"x": elements})
    assert report.error is None
    assert report.output[1:] == [6, 10][: len(elements)]
    if elements:
        assert "max_rounds: 3" in report.output[0]["reason"]
        assert report.nodes["count"].attempts == 5


async def test_a_value_is_cast_on_its_way_back_like_on_an_edge():
    flow = small_flow(
        """
        grow:
          inputs: [{name: x, type: string}]
          outputs: [{name: x, type: number}]
          loop: {until: "x > 3"}
          transform:
            mode: code
            spec: |
              async def transform(inputs, context, state):
                  assert isinstance(inputs["x"], str)
                  return {"x": len(inputs["x"]) + float(inputs["x"])}
        """,
        ["_input.x -> grow.x", "grow.x -> _output"],
    )
    report = await run_flow(flow, {"x": "1"})
    assert report.output == 5.0
