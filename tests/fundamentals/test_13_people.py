"""`action.require` asks a person. The node waits; what the person answers is its value, and an answer that does not
come within `timeout_seconds` is a failure of type `timeout`, which the error port can carry on.

The question is an action. Whoever may act for the scope finds it and resolves it, with an ActionManager on the same
store: the one that was given to the flow, or one on the run store, in whatever process.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import agentflow
from agent_runtime import ActionManager, ActionRecord, InMemoryActionStore, SqliteActionStore
from flow_runtime import LocalSettings, run

DEPLOY = """
version: "1.0"
metadata: {name: deploy}
context: {requires: [release]}
nodes:
  ask:
    inputs: [{name: release, type: string}]
    outputs: [{name: answer, type: object}]
    error: {name: silence}
    transform:
      mode: declarative
      spec:
        op: action.require
        args: {type: confirm, payload: {message: "Deploy ${release}?"}, timeout_seconds: 60}
  deploy:
    inputs: [{name: answer, type: object}, {name: release, type: string}]
    outputs: [{name: text, type: string}]
    transform: {mode: declarative, spec: {op: io.format_response, args: {template: "${release} is deployed"}}}
edges:
  - {from: _input.release, to: ask.release}
  - {from: _input.release, to: deploy.release}
  - {from: ask.answer, to: deploy.answer, condition: "answer['approved'] == True"}
  - {from: deploy.text, to: _output.done}
  - {from: ask.silence, to: _output.silence}
"""


async def the_question(desk: ActionManager) -> ActionRecord:
    """What a person's page would show."""
    while not (found := await desk.list()):
        await asyncio.sleep(0.01)
    return found[0]


async def test_a_node_waits_for_a_person_and_the_flow_goes_on_with_the_answer():
    desk = ActionManager(InMemoryActionStore())
    running = asyncio.create_task(
        run(agentflow.loads(DEPLOY).flow, {"release": "1.2"}, settings=LocalSettings(actions=desk))
    )
    question = await the_question(desk)
    assert question.payload == {"message": "Deploy 1.2?"}
    await desk.resolve(action_id=question.action_id, resolution={"approved": True}, resolved_by="ada")
    assert (await running).output == {"done": "1.2 is deployed"}


async def test_a_no_is_an_answer_like_any_other():
    desk = ActionManager(InMemoryActionStore())
    running = asyncio.create_task(
        run(agentflow.loads(DEPLOY).flow, {"release": "1.2"}, settings=LocalSettings(actions=desk))
    )
    await desk.resolve(action_id=(await the_question(desk)).action_id, resolution={"approved": False})
    report = await running
    assert report.nodes["deploy"].status == "skipped"


async def test_silence_goes_to_the_error_port():
    impatient = agentflow.loads(DEPLOY.replace("timeout_seconds: 60", "timeout_seconds: 0.05")).flow
    report = await run(
        impatient, {"release": "1.2"}, settings=LocalSettings(actions=ActionManager(InMemoryActionStore()))
    )
    assert report.output["silence"]["type"] == "timeout"


async def test_the_run_store_holds_the_question_for_another_process(tmp_path: Path):
    settings = LocalSettings(store=f"sqlite:///{tmp_path / 'runs.sqlite'}")
    running = asyncio.create_task(run(agentflow.loads(DEPLOY).flow, {"release": "1.2"}, settings=settings))
    async with SqliteActionStore(tmp_path / "runs.sqlite") as store:
        desk = ActionManager(store)
        await desk.resolve(action_id=(await the_question(desk)).action_id, resolution={"approved": True})
        assert (await running).output == {"done": "1.2 is deployed"}
