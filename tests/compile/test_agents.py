"""What one can do with the class of a compiled flow: call its nodes, change its methods, keep it open."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agentflow import loads, plan
from flow_runtime import LocalSettings
from flow_runtime.compiled import Context, LocalAgent, NodeFailure
from flow_runtime.scripted_models import ScriptedModels
from runtime_core.report import ModelUse
from support.compiled import imported, written

FLOW = """
version: "1.0"
metadata: {name: desk}
context: {requires: [n]}
inputs: {n: {type: number}}
nodes:
  halve:
    inputs: [{name: n, type: number}]
    outputs: [{name: n, type: number}]
    error: {name: broke}
    runtime: {retries: 2, retry_backoff_ms: 0}
    transform:
      mode: code
      spec: |
        async def transform(inputs, context, state):
            return {"n": 1 / inputs["n"]}
  explain:
    inputs: [{name: problem, type: object}]
    outputs: [{name: out, type: object}]
    transform: {mode: declarative, spec: {op: io.format_response, args: {template: "${problem}"}}}
edges:
  - {from: _input.n, to: halve.n}
  - {from: halve.broke, to: explain.problem}
  - {from: halve.n, to: _output}
  - {from: explain.out, to: _output}
"""


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[ModuleType]:
    with imported(written(plan(loads(FLOW).flow), tmp_path)) as module:
        yield module


async def test_run_of_the_module_takes_one_request(desk: ModuleType):
    report = await desk.run({"n": 4}, settings=LocalSettings(store="memory:"), deadline_s=10)
    assert (report.output, report.error, report.use) == (0.25, None, ModelUse())
    assert (await desk.run({})).error.code == "bad_input"


async def test_a_node_fails_as_an_error_when_it_is_called_and_as_a_value_in_a_run(desk: ModuleType):
    async with desk.DeskAgent() as agent:
        with pytest.raises(NodeFailure, match="ZeroDivisionError") as caught:
            await agent.node_halve({"n": 0}, Context({"n": 0}))
        output = (await agent.run({"n": 0})).output
    assert (caught.value.kind, caught.value.attempts) == ("error", 2)
    assert output == {"reason": str(caught.value), "node": "halve", "type": "error", "attempts": 2}


async def test_a_method_may_be_changed_by_hand(desk: ModuleType, caplog: pytest.LogCaptureFixture):
    class Changed(desk.DeskAgent):
        async def node_halve(self, inputs: Any, ctx: Context) -> Any:
            if inputs["n"] == 13:
                raise LookupError("no halves of 13")
            if inputs["n"] == 14:
                raise NodeFailure("too much", kind="timeout", attempts=7)
            if inputs["n"] == 15:
                return None
            made = await super().node_halve(inputs, ctx)
            return {"n": made["n"] * ctx.get("n")}

    async with Changed() as agent:
        assert (await agent.run({"n": 4})).output == 1.0
        with caplog.at_level(logging.ERROR):
            report = await agent.run({"n": 13})
        assert report.output == {
            "reason": "LookupError: no halves of 13",
            "node": "halve",
            "type": "error",
            "attempts": 1,
        }
        assert "the method of node 'halve' failed" in caplog.text
        assert "outputs by port, not NoneType" in (await agent.run({"n": 15})).output["reason"]
        output = (await agent.run({"n": 14})).output
    assert output == {"reason": "too much", "node": "halve", "type": "timeout", "attempts": 7}


async def test_a_cancelled_run_cancels_its_methods(desk: ModuleType):
    started, ended = asyncio.Event(), asyncio.Event()

    class Slow(desk.DeskAgent):
        async def node_halve(self, inputs: Any, ctx: Context) -> Any:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

    async with Slow() as agent:
        run = asyncio.create_task(agent.run({"n": 1}))
        await started.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        assert ended.is_set()


async def test_the_first_call_opens_an_agent_once_and_it_can_be_opened_again(desk: ModuleType):
    opened: list[str] = []

    class Watched(desk.DeskAgent):
        def through(self, node: str, body: Any) -> Any:
            opened.append(node)
            return super().through(node, body)

    agent = Watched()
    reports = await asyncio.gather(*(agent.run({"n": 1}) for _ in range(5)))
    assert [report.output for report in reports] == [1.0] * 5
    assert opened == ["halve", "explain"]
    await agent.aclose()
    assert not agent.is_open
    assert await agent.node_halve({"n": 2}, Context({"n": 2})) == {"n": 0.5}
    await agent.aclose()


async def test_a_new_flow_over_an_agent_is_an_agent_of_both():
    """What a class declares replaces what its base declared under that name."""
    from flow_runtime.compiled import edge, flow_facts, node, operation, port

    class Base(LocalAgent):
        flow = flow_facts(
            metadata={"name": "x"}, context={"requires": ["x"]}, answer=(edge(1, "a.out"),), fingerprint="f"
        )

        @node(
            "a",
            inputs=(port("x", "string", edge(0, "_input.x")),),
            outputs=(port("out", "string"),),
            transform=operation("io.format_response", {"template": "base ${x}"}),
        )
        async def node_a(self, inputs: Any, ctx: Context) -> Any:
            return await self.body("a", inputs, ctx)

    class Other(Base):
        @node(
            "a",
            inputs=(port("x", "string", edge(0, "_input.x")),),
            outputs=(port("out", "string"),),
            transform=operation("io.format_response", {"template": "other ${x}"}),
        )
        async def node_a(self, inputs: Any, ctx: Context) -> Any:
            return await self.body("a", inputs, ctx)

    for agent, output in ((Base, "base 1"), (Other, "other 1")):
        async with agent(models=ScriptedModels({})) as opened:
            assert (await opened.run({"x": "1"})).output == output
    assert (Base.plan().fingerprint, Base.plan() is Base.plan()) == ("f", True)
