"""Where no operation fits, a node carries Python: a function `transform(inputs, context, state)` that returns an object
with a value for each output port.

A plain `def` runs in a sandbox process, which is killed at the node's timeout. An `async def` runs on the event loop:
it can await, it has the node's state (see test_08_state.py), and it must not block. Every call starts afresh.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import agentflow
from flow_runtime import LocalFlow, LocalSettings, run
from flow_runtime.errors import CodeRefused

WORDS = """
version: "1.0"
metadata: {name: words}
context: {requires: [text], optional: [language]}
nodes:
  count:
    inputs: [{name: text, type: string}]
    outputs: [{name: words, type: array}, {name: total, type: number}]
    transform:
      mode: code
      spec: |
        import re

        def transform(inputs, context, state):
            words = re.findall(r"\\w+", inputs["text"])
            return {"words": words, "total": len(words)}
edges:
  - {from: _input.text, to: count.text}
  - {from: count.words, to: _output.words}
  - {from: count.total, to: _output.total}
"""


async def test_code_takes_inputs_by_port_and_returns_outputs_by_port():
    report = await run(agentflow.loads(WORDS).flow, {"text": "to be or not"})
    assert report.output == {"words": ["to", "be", "or", "not"], "total": 4}


def coded(body: str, *, define: str = "async def", runtime: str = "{}") -> agentflow.Flow:
    """A flow of one node with this body."""
    indented = body.replace("\n", "\n            ")
    return agentflow.loads(f"""
version: "1.0"
metadata: {{name: coded}}
context: {{requires: [x], optional: [language]}}
nodes:
  work:
    inputs: [{{name: x, type: string}}]
    outputs: [{{name: out, type: object}}]
    runtime: {runtime}
    transform:
      mode: code
      spec: |
        {define} transform(inputs, context, state):
            {indented}
edges:
  - {{from: _input.x, to: work.x}}
  - {{from: work.out, to: _output}}
""").flow


async def test_context_holds_the_fields_of_the_request_and_its_trace():
    flow = coded(
        """return {"out": {"x": context.x, "language": context.get("language", "en"), "trace": context.trace_id}}"""
    )
    report = await run(flow, {"x": "hello"})
    assert report.output == {"x": "hello", "language": "en", "trace": report.trace_id}


async def test_code_that_raises_fails_its_node_with_the_error_and_the_line():
    report = await run(coded("""limit = 3\nreturn {"out": {"tenth": limit / 0}}""", define="def"), {"x": "-"})
    assert report.error is not None
    assert "ZeroDivisionError" in report.error.message
    assert "at line 3" in report.error.message


async def test_code_that_runs_too_long_is_stopped_even_if_it_never_yields():
    flow = coded("while True: pass", define="def", runtime="{timeout_ms: 300}")
    report = await run(flow, {"x": "-"})
    assert report.error is not None
    assert "0.3 s" in report.error.message


async def test_code_that_returns_something_else_than_its_ports_fails():
    report = await run(coded("""return {"result": 1}"""), {"x": "-"})
    assert report.error is not None
    assert "lacks the output port out" in report.error.message


async def test_one_call_leaves_nothing_behind_for_the_next():
    flow = coded(
        """seen = globals().setdefault("SEEN", [])\nseen.append(inputs["x"])\nreturn {"out": {"seen": seen}}"""
    )
    async with LocalFlow(flow) as runner:
        outputs = [(await runner.run({"x": who})).output for who in ("Ada", "Grace")]
    assert outputs == [{"seen": ["Ada"]}, {"seen": ["Grace"]}]


async def test_code_may_be_installed_and_only_named_in_the_flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "tutorial_prices.py").write_text("""
def total(inputs, context, state):
    return {"sum": sum(inputs["prices"])}
""")
    monkeypatch.syspath_prepend(tmp_path)
    flow = agentflow.loads("""
version: "1.0"
metadata: {name: installed}
context: {requires: [prices]}
inputs: {prices: {type: array}}
nodes:
  add:
    inputs: [{name: prices, type: array}]
    outputs: [{name: sum, type: number}]
    transform: {mode: code, module: "tutorial_prices:total"}
edges:
  - {from: _input.prices, to: add.prices}
  - {from: add.sum, to: _output}
""").flow
    report = await run(flow, {"prices": [1, 2, 3.5]}, settings=LocalSettings(code="modules"))
    assert report.output == 6.5


async def test_whoever_runs_a_flow_may_forbid_its_code():
    with pytest.raises(CodeRefused, match="node 'count' has code"):
        await run(agentflow.loads(WORDS).flow, {"text": "x"}, settings=LocalSettings(code="off"))
