"""An agent is a model with a role, and perhaps tools. The operations agent.* let several of them work on one thing:
in a chain, side by side, over the items of an array, by a plan, or in a debate. What they may take is bounded.

Programs join agents in the same ways with `agent_runtime`; its kernel does each request as a job.
"""

from __future__ import annotations

import agentflow
from agent_runtime import ChainOperator, ExecutionRequest, RuntimeKernel
from flow_runtime import run
from llm_client import Agent, ExecutionEngine, HubRouter
from llmhub_runtime import LLMHub
from llmhub_runtime.sim import SimServer, parse_script

NEWS = """
version: "1.0"
metadata: {name: news}
context: {requires: [topics]}
nodes:
  report:
    inputs: [{name: topics, type: array}]
    outputs: [{name: page, type: string}]
    transform:
      mode: declarative
      spec:
        op: agent.map_reduce
        args:
          input: "${topics}"
          map: {role: writer, system: Write one line about the topic.}
          reduce: {role: spare, system: Make one page of these lines.}
          limits: {max_child_jobs: 4}
edges:
  - {from: _input.topics, to: report.topics}
  - {from: report.page, to: _output}
"""


def script(sim: SimServer) -> None:
    rules = [
        {"match": {"contains": "weather"}, "reply": {"answer": "Rain."}},
        {"match": {"contains": "sports"}, "reply": {"answer": "One nil."}},
        {"reply": {"answer": "Rain. One nil."}},
    ]
    sim.set_script(parse_script({"rules": rules}))


async def test_an_operation_runs_agents_over_the_items_of_an_array(sim: SimServer, hub: LLMHub):
    script(sim)
    report = await run(agentflow.loads(NEWS).flow, {"topics": ["weather", "sports"]}, hub=hub)
    assert report.output == "Rain. One nil."
    assert report.use.calls == 3


async def test_more_work_than_the_limits_allow_is_refused_before_a_model_is_asked(sim: SimServer, hub: LLMHub):
    report = await run(agentflow.loads(NEWS).flow, {"topics": ["a", "b", "c", "d"]}, hub=hub)
    assert report.error is not None
    assert "max_child_jobs is 4" in report.error.message
    assert not sim.log()


async def test_a_program_joins_agents_too_and_its_kernel_runs_them_as_jobs(sim: SimServer, hub: LLMHub):
    script(sim)
    async with ExecutionEngine(router=HubRouter(hub)) as engine:
        writer, editor = (Agent(engine=engine, role=role) for role in ("writer", "spare"))
        async with RuntimeKernel(engine=engine, operators=[ChainOperator([writer, editor], name="news")]) as kernel:
            handle = await kernel.execute(ExecutionRequest(operator_id="news", prompt="the weather"))
            happened = [event.type.value async for event in handle.events()]
            result = await handle.result()
    assert (result.content, result.model_calls) == ("Rain. One nil.", 2)
    assert (happened[0], happened[-1]) == ("job.created", "job.completed")
