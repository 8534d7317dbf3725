"""State is a bucket of values that outlives a node. `scope: request` lives for one run, `scope: session` across runs.
`key` names the bucket, with fields of the request in braces: nodes whose keys resolve to the same text share it. A
session's key must hold something of the request, so that no two sessions ever meet.
"""

from __future__ import annotations

from pathlib import Path

import agentflow
from flow_runtime import LocalFlow, LocalSettings, run

CHAT = """
version: "1.0"
metadata: {name: chat}
context: {requires: [session_id, said]}
nodes:
  recall:
    inputs: []
    outputs: [{name: history, type: array}]
    state: {scope: session, key: "chat_{context.session_id}"}
    transform:
      mode: code
      spec: |
        async def transform(inputs, context, state):
            return {"history": await state.get("history", [])}
  remember:
    inputs: [{name: said, type: string}, {name: history, type: array}]
    outputs: []
    state: {scope: session, key: "chat_{context.session_id}"}
    transform:
      mode: code
      spec: |
        async def transform(inputs, context, state):
            await state.set("history", [*inputs["history"], inputs["said"]])
            return {}
edges:
  - {from: _input.said, to: remember.said}
  - {from: recall.history, to: remember.history}
  - {from: recall.history, to: _output}
"""


async def test_a_session_remembers_from_one_request_to_the_next():
    async with LocalFlow(agentflow.loads(CHAT).flow) as runner:
        await runner.run({"session_id": "s1", "said": "hello"})
        report = await runner.run({"session_id": "s1", "said": "again"})
    assert report.output == ["hello"]


async def test_sessions_do_not_see_each_other():
    async with LocalFlow(agentflow.loads(CHAT).flow) as runner:
        await runner.run({"session_id": "s1", "said": "a secret"})
        report = await runner.run({"session_id": "s2", "said": "hello"})
    assert report.output == []


async def test_a_node_that_keeps_session_state_runs_although_no_answer_needs_it():
    report = await run(agentflow.loads(CHAT).flow, {"session_id": "s1", "said": "hello"})
    assert report.nodes["remember"].status == "succeeded"


async def test_memory_ends_with_the_process_and_a_store_does_not(tmp_path: Path):
    stored = agentflow.loads(CHAT.replace("scope: session,", "scope: session, backend: store,")).flow
    settings = LocalSettings(store=f"sqlite:///{tmp_path / 'state.sqlite'}")
    await run(stored, {"session_id": "s1", "said": "hello"}, settings=settings)
    report = await run(stored, {"session_id": "s1", "said": "again"}, settings=settings)
    assert report.output == ["hello"]


async def test_request_state_is_shared_by_the_nodes_of_one_run_and_gone_after_it():
    flow = agentflow.loads("""
version: "1.0"
metadata: {name: scratch}
context: {requires: [x]}
nodes:
  put:
    inputs: [{name: x, type: string}]
    outputs: [{name: done, type: boolean}]
    state: {scope: request, key: scratch}
    transform:
      mode: code
      spec: |
        async def transform(inputs, context, state):
            await state.update("all", lambda all: [*all, inputs["x"]], default=[])
            return {"done": True}
  read:
    inputs: [{name: done, type: boolean}]
    outputs: [{name: all, type: array}]
    state: {scope: request, key: scratch}
    transform:
      mode: code
      spec: |
        async def transform(inputs, context, state):
            return {"all": await state.get("all")}
edges:
  - {from: _input.x, to: put.x}
  - {from: put.done, to: read.done}
  - {from: read.all, to: _output}
""").flow
    async with LocalFlow(flow) as runner:
        assert [(await runner.run({"x": word})).output for word in ("one", "two")] == [["one"], ["two"]]


def test_a_session_key_without_anything_of_the_request_is_refused():
    _, findings = agentflow.inspect_flow(CHAT.replace("chat_{context.session_id}", "chat"))
    assert {finding.code for finding in findings} == {"shared-state-key"}
