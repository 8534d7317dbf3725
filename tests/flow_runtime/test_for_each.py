"""`for_each`: one run of the node per element, in parallel, joined in the order of the input."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from flow_runtime.errors import ModelFailed
from support.flows import ScriptedModels, run_flow, small_flow

NODES = """
ask:
  inputs: [{name: items, type: array%(input)s}, {name: tone, type: string, optional: true}]
  outputs: [{name: answers, type: array%(schema)s}%(outputs)s]
  for_each: {input: items%(each)s}
  prompt: {template: "{{ items }}{{ tone or '' }}", role: main%(prompt)s}
  runtime: {retry_backoff_ms: 0%(runtime)s}
"""
EDGES = ["_input.x -> ask.items", "_input.tone -> ask.tone", "ask.answers -> _output"]


def each_flow(edges: list[str] | None = None, more: str = "", **parts: str):
    text = NODES % {
        key: f", {parts[key]}" if key in parts else ""
        for key in ("input", "schema", "outputs", "each", "prompt", "runtime")
    }
    return small_flow(text + more, edges or EDGES, context={"optional": ["tone"]})


def said(messages: Any) -> str:
    return messages[-1]["content"]


async def echo(messages: Any) -> str:
    """Answers late for early elements, so that the order of the answers is not that of the calls."""
    text = said(messages)
    await asyncio.sleep({"a": 0.03, "b": 0.02}.get(text, 0))
    if "bad" in text:
        raise ModelFailed(f"no answer to {text}")
    return text.upper()


async def run_each(flow: Any, elements: Any, answer: Any = echo, **request: Any):
    models = ScriptedModels({"main": [answer]})
    return await run_flow(flow, {"x": elements, **request}, models=models), models


async def test_outputs_are_arrays_in_the_order_of_the_input_and_other_inputs_go_to_every_element():
    report, models = await run_each(each_flow(), ["a", "b", "c"], tone="!")
    assert report.output == ["A!", "B!", "C!"]
    assert sorted(said(messages) for _, messages, _ in models.calls) == ["a!", "b!", "c!"]
    assert report.nodes["ask"].attempts == 3


async def test_an_empty_array_and_an_unfed_optional_one_make_empty_arrays():
    report, models = await run_each(each_flow(), [])
    assert report.output == []
    assert models.calls == []
    unfed = each_flow(["_input.tone -> ask.items", "ask.answers -> _output"], input="optional: true")
    report = await run_flow(unfed, {"x": 1}, models=ScriptedModels({"main": [echo]}))
    assert report.output == []


async def test_what_is_no_array_is_a_failure_that_says_so():
    report, _ = await run_each(each_flow(), {"a": 1})
    assert report.error.code == "node_failed"
    assert "needs an array at its input 'items', and it got an object" in report.error.message


async def test_no_more_than_max_parallel_elements_are_worked_on_at_once():
    running, most = 0, 0

    async def counted(messages: Any) -> str:
        nonlocal running, most
        running, most = running + 1, max(most, running + 1)
        await asyncio.sleep(0.005)
        running -= 1
        return "ok"

    report, _ = await run_each(each_flow(each="max_parallel: 3"), ["x"] * 10, counted)
    assert report.output == ["ok"] * 10
    assert most == 3
    most = 0
    report, _ = await run_each(each_flow(runtime="concurrency: 2"), ["x"] * 10, counted)
    assert most == 2, "concurrency bounds what the process does of the node, elements included"


async def test_fail_names_the_element_and_cancels_the_others():
    entered, left = asyncio.Event(), asyncio.Event()

    async def answer(messages: Any) -> str:
        if said(messages) == "bad":
            await entered.wait()
            raise ModelFailed("no answer")
        entered.set()
        try:
            await asyncio.sleep(30)
        finally:
            left.set()
        return "never"

    report, models = await run_each(each_flow(each="max_parallel: 2"), ["slow", "bad", "never asked"], answer)
    assert report.error.code == "node_failed"
    assert "items[1]: no answer" in report.error.message
    assert left.is_set()
    assert len(models.calls) == 2


async def test_skip_leaves_failed_elements_out():
    report, _ = await run_each(each_flow(each="on_item_error: skip"), ["a", "bad", "c"])
    assert report.output == ["A", "C"]
    report, _ = await run_each(each_flow(each="on_item_error: skip"), ["bad"])
    assert report.output == []


async def test_collect_puts_the_failure_in_the_place_of_every_output_of_the_element():
    flow = each_flow(
        ["_input.x -> ask.items", "ask.answers -> _output.answers", "ask.more -> _output.more"],
        each="on_item_error: collect",
        outputs="{name: more, type: array}",
        prompt="output_schema: {type: object}",
        runtime="retries: 2",
    )

    async def answer(messages: Any) -> str:
        return "no json" if said(messages) == "bad" else json.dumps({"answers": said(messages), "more": 1})

    report, _ = await run_each(flow, ["a", "bad", "c"], answer)
    [failure] = [entry for entry in report.output["answers"] if isinstance(entry, dict)]
    assert report.output == {"answers": ["a", failure, "c"], "more": [1, failure, 1]}
    assert failure.keys() == {"reason", "node", "type", "attempts"}
    assert (failure["node"], failure["type"], failure["attempts"]) == ("ask", "validation_fail", 2)
    assert report.nodes["ask"].attempts == 4


async def test_every_element_has_its_own_attempts_and_fallback():
    asked: dict[str, int] = {}

    async def second_time(messages: Any) -> str:
        text = said(messages)
        asked[text] = asked.get(text, 0) + 1
        if asked[text] == 1 or text == "bad":
            raise ModelFailed("down")
        return text

    flow = each_flow(runtime="retries: 2", prompt="fallback: {on: error, static_response: canned}")
    report, _ = await run_each(flow, ["a", "bad", "c"], second_time)
    assert report.output == ["a", "canned", "c"]
    assert report.nodes["ask"].attempts == 7


async def test_the_schema_is_about_the_whole_array():
    flow = each_flow(schema="schema: {type: array, maxItems: 2, items: {type: string}}")
    report, _ = await run_each(flow, ["a", "b"])
    assert report.output == ["A", "B"]
    report, _ = await run_each(flow, ["a", "b", "c"])
    assert report.error.code == "node_failed"
    assert "answers" in report.error.message


async def test_a_failed_element_reaches_the_error_port_with_its_kind():
    more = """
handle:
  inputs: [{name: problem, type: object}]
  outputs: [{name: out, type: object}]
  transform: {mode: declarative, spec: {op: io.format_response, args: {template: "${problem}"}}}
"""
    text = NODES.replace("  for_each", "  error: {name: broke}\n  for_each") % dict.fromkeys(
        ("input", "schema", "outputs", "each", "prompt", "runtime"), ""
    )
    edges = [*EDGES[:1], "ask.answers -> _output", "ask.broke -> handle.problem", "handle.out -> _output"]
    report, _ = await run_each(small_flow(text + more, edges), ["a", "bad"])
    assert report.output == {"reason": "items[1]: no answer to bad", "node": "ask", "type": "error", "attempts": 1}


async def test_cancelling_the_run_cancels_every_element():
    entered, left = 0, 0

    async def hang(messages: Any) -> str:
        nonlocal entered, left
        entered += 1
        try:
            await asyncio.sleep(30)
        finally:
            left += 1
        return "never"

    task = asyncio.create_task(run_each(each_flow(), ["a", "b", "c"], hang))
    while entered < 3:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left == 3


async def test_the_elements_of_a_table_go_through_an_operation():
    flow = small_flow(
        """
        price:
          inputs: [{name: rows, type: table}]
          outputs: [{name: names, type: array}]
          for_each: {input: rows}
          transform: {mode: declarative, spec: {op: io.format_response, args: {template: "${rows.name}!"}}}
        """,
        ["_input.x -> price.rows", "price.names -> _output"],
    )
    report = await run_flow(flow, {"x": [{"name": "tea"}, {"name": "jam"}]})
    assert report.output == ["tea!", "jam!"]
