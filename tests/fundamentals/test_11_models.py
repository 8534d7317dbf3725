"""An `llmhub.yaml` says which model each role is, with its provider, parameters and time limit. LLMHub reads it; the
flow stays as it is when a role moves to another model.

`provider: sim` is a simulated model that comes with the package. It is an HTTP server like the real ones, answers by
rule, fails on demand and keeps a log. Where the file gives it no address, a flow that needs it starts its own.
"""

from __future__ import annotations

from pathlib import Path

import agentflow
from flow_runtime import LocalSettings, run
from llmhub_runtime import LLMHub
from llmhub_runtime.sim import SimServer, parse_script

GREET = """
version: "1.0"
metadata: {name: greet}
context: {requires: [name]}
nodes:
  greet:
    inputs: [{name: name, type: string}]
    outputs: [{name: text, type: string}]
    prompt: {role: writer, template: "Greet {{ name }}.", max_tokens: 50}
edges:
  - {from: _input.name, to: greet.name}
  - {from: greet.text, to: _output}
"""

LLMHUB = """
project: tutorial
env: test
providers:
  sim: {}
roles:
  writer: {provider: sim, model: big, mode: chat, params: {temperature: 0.3, max_tokens: 400}, timeout_s: 30}
"""


async def test_a_role_is_looked_up_in_llmhub_yaml_and_a_simulated_model_needs_no_key(tmp_path: Path):
    (tmp_path / "llmhub.yaml").write_text(LLMHUB)
    async with LLMHub(config_path=tmp_path / "llmhub.yaml") as hub:
        report = await run(agentflow.loads(GREET).flow, {"name": "Ada"}, hub=hub)
    assert report.output.startswith("[sim:big]"), "it says what it is in every answer"


async def test_another_model_is_another_line_in_llmhub_yaml_and_not_another_flow(tmp_path: Path, sim: SimServer):
    (tmp_path / "llmhub.yaml").write_text(LLMHUB.replace("model: big", "model: small"))
    flow = agentflow.loads(GREET).flow
    async with LLMHub(config_path=tmp_path / "llmhub.yaml", api_bases={"sim": sim.openai_base}) as hub:
        await run(flow, {"name": "Ada"}, hub=hub)
    assert [entry.model for entry in sim.log()] == ["small"]


async def test_the_prompts_own_parameters_win_over_the_roles(tmp_path: Path, sim: SimServer):
    (tmp_path / "llmhub.yaml").write_text(LLMHUB)
    async with LLMHub(config_path=tmp_path / "llmhub.yaml", api_bases={"sim": sim.openai_base}) as hub:
        await run(agentflow.loads(GREET).flow, {"name": "Ada"}, hub=hub)
    [entry] = sim.log()
    sent = dict(entry.request) if isinstance(entry.request, dict) else {}
    assert (sent["temperature"], sent["max_completion_tokens"]) == (0.3, 50)


async def test_the_same_question_gets_the_same_answer(sim: SimServer, hub: LLMHub):
    flow = agentflow.loads(GREET).flow
    answers = {(await run(flow, {"name": "Ada"}, hub=hub)).output for _ in range(3)}
    assert len(answers) == 1


async def test_a_script_tells_the_simulated_model_what_to_say_to_whom(sim: SimServer, hub: LLMHub):
    sim.set_script(
        parse_script(
            {
                "rules": [
                    {"match": {"contains": "Ada"}, "reply": {"answer": "Good morning, Ada."}},
                    {"match": {"role": "writer"}, "reply": {"answer": "Hello."}},
                ]
            }
        )
    )
    flow = agentflow.loads(GREET).flow
    answers = [(await run(flow, {"name": name}, hub=hub)).output for name in ("Ada", "Grace")]
    assert answers == ["Good morning, Ada.", "Hello."]


async def test_its_log_shows_every_request_with_role_and_tokens(sim: SimServer, hub: LLMHub):
    await run(agentflow.loads(GREET).flow, {"name": "Ada"}, hub=hub)
    [entry] = sim.log()
    assert (entry.role, entry.status) == ("writer", 200)
    assert entry.usage is not None and entry.usage.prompt_tokens > 0


async def test_a_flow_may_name_a_model_itself_but_its_address_must_be_allowed_by_who_runs_it(
    sim: SimServer, hub: LLMHub
):
    named = GREET.replace("role: writer,", f'model: {{provider: sim, name: own, endpoint: "{sim.openai_base}"}},')
    flow = agentflow.loads(named).flow
    refused = await run(flow, {"name": "Ada"}, hub=hub)
    assert refused.error is not None and "allow_hosts" in refused.error.message
    allowed = await run(flow, {"name": "Ada"}, hub=hub, settings=LocalSettings(allow_hosts=(f"127.0.0.1:{sim.port}",)))
    assert allowed.output.startswith("[sim:own]")


async def test_a_hub_can_be_asked_without_a_flow(hub: LLMHub):
    answer = await hub.acompletion("spare", [{"role": "user", "content": "hello"}])
    assert answer.choices[0].message.content.startswith("[sim:small]")
