"""The defects of the specification's own templates that concern running a flow (IR.md section 3), one test each."""

from __future__ import annotations

import asyncio
import re

import pytest

from flow_runtime import LocalFlow
from support.flows import ScriptedModels, run_flow, small_flow


def code_node(body: str, *, name: str = "a", head: str = "async def", inputs: str = "[{name: x, type: number}]") -> str:
    return f"""
{name}:
  inputs: {inputs}
  outputs: [{{name: out, type: object}}]
  transform:
    mode: code
    spec: |
      {head} transform(inputs, context, state):
          {body}
"""


ONE = ["_input.x -> a.x", "a.out -> _output"]


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("def", "return {'out': {'ran': inputs['x']}}"),
        ("async def", "return {'out': {'ran': inputs['x']}}"),
        ("def", "import asyncio; await asyncio.sleep(0); return {'out': {'ran': inputs['x']}}"),
    ],
    ids=["sync", "async", "sync that awaits"],
)
async def test_d16_a_transform_may_be_sync_or_async(head: str, body: str):
    report = await run_flow(small_flow(code_node(body, head=head), ONE))
    assert report.output == {"ran": 1}


async def test_d15_quotes_backslashes_and_braces_in_prompts_are_only_text():
    nasty = "'''quotes''' \"\"\" \\n {not a field} {{ x }} $" + "{x}"
    flow = small_flow(
        f"""
        a:
          inputs: [{{name: x, type: string}}]
          outputs: [{{name: out, type: string}}]
          prompt: {{role: main, template: {nasty!r}}}
        """.replace(repr(nasty), '"' + nasty.replace("\\", "\\\\").replace('"', '\\"') + '"'),
        ONE,
    )
    models = ScriptedModels({"main": ["ok"]})
    await run_flow(flow, {"x": "{{ 1 + 1 }}"}, models=models)
    assert models.calls[0][1][0]["content"] == nasty.replace("{{ x }}", "{{ 1 + 1 }}")


async def test_d19_a_trace_id_is_made_when_the_request_has_none_and_kept_when_the_caller_gives_one():
    flow = small_flow(code_node("return {'out': {'trace': context.trace_id, 'at': context.event_time}}"), ONE)
    report = await run_flow(flow)
    assert re.fullmatch(r"[0-9a-f]{32}", report.trace_id)
    assert report.output["trace"] == report.trace_id
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", report.output["at"])
    assert (await run_flow(flow, trace_id="client-7")).trace_id == "client-7"


async def test_d20_independent_nodes_really_run_in_parallel():
    nap = "import asyncio; await asyncio.sleep(0.5); return {'out': {}}"
    nodes = "".join(code_node(nap, name=name) for name in "abcd")
    edges = [each for name in "abcd" for each in (f"_input.x -> {name}.x", f"{name}.out -> _output.{name}")]
    async with LocalFlow(small_flow(nodes, edges)) as runner:
        nodes = (await runner.run({"x": 1})).nodes.values()
    assert max(node.started_s for node in nodes) < min(node.finished_s for node in nodes)


async def test_d12_a_timeout_reaches_the_error_port_like_any_other_failure():
    nodes = """
a:
  inputs: [{name: x, type: number}]
  outputs: [{name: out, type: object}]
  error: {name: failed}
  runtime: {timeout_ms: 100}
  transform:
    mode: code
    spec: |
      import asyncio
      async def transform(inputs, context, state):
          await asyncio.sleep(30)
"""
    flow = small_flow(nodes, [*ONE, "a.failed -> _output"])
    report = await run_flow(flow)
    assert report.output["type"] == "timeout"


async def test_d13_request_data_of_one_run_is_not_seen_by_the_next_one():
    body = "COUNT.append(1); return {'out': {'n': len(COUNT), 'x': inputs['x']}}"
    flow = small_flow(code_node(body).replace("async def", "COUNT = []\n      async def"), ONE)
    async with LocalFlow(flow) as runner:
        outputs = [(await runner.run({"x": number})).output for number in range(3)]
    assert outputs == [{"n": 1, "x": 0}, {"n": 1, "x": 1}, {"n": 1, "x": 2}]


async def test_a_node_cannot_change_what_its_siblings_get():
    nodes = code_node("inputs['x']['k'] = 'changed'; return {'out': {}}", inputs="[{name: x, type: object}]")
    nodes += code_node(
        "import asyncio; await asyncio.sleep(0.05); return {'out': inputs['x']}",
        name="b",
        inputs="[{name: x, type: object}]",
    )
    flow = small_flow(nodes, ["_input.x -> a.x", "_input.x -> b.x", "b.out -> _output"])
    assert (await run_flow(flow, {"x": {"k": "original"}})).output == {"k": "original"}


async def test_missing_required_fields_are_all_named_and_nothing_runs():
    flow = small_flow(code_node("return {'out': {}}"), ONE, requires=["x", "y", "z"])
    report = await run_flow(flow, {"x": 1})
    assert report.error.code == "bad_input"
    assert "'y', 'z'" in report.error.message
    assert report.nodes == {}


async def test_runs_at_the_same_time_keep_their_data_apart():
    flow = small_flow(code_node("import asyncio; await asyncio.sleep(0.01); return {'out': {'x': inputs['x']}}"), ONE)
    async with LocalFlow(flow) as runner:
        reports = await asyncio.gather(*(runner.run({"x": number}) for number in range(50)))
    assert [report.output["x"] for report in reports] == list(range(50))
