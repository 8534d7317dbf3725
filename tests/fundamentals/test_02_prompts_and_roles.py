"""A node with a `prompt` asks a model. The prompt is a Jinja template over the node's input ports; the model is named
by a role, such as `writer`. Which model a role is stands elsewhere (see test_11_models.py), so a flow names no vendor.

The tests of this file call a simulated model, which is told what to say.
"""

from __future__ import annotations

from typing import Any

import agentflow
from flow_runtime import run
from llmhub_runtime import LLMHub
from llmhub_runtime.sim import SimServer, parse_script


def says(sim: SimServer, *answers: Any) -> None:
    """Let the simulated model give these answers in turn."""
    sim.set_script(parse_script({"rules": [{"reply": {"answers": list(answers)}}]}))


def asked(sim: SimServer) -> list[dict[str, Any]]:
    """The messages of the last request that the model got."""
    request: Any = sim.log()[-1].request
    return request["messages"]


async def test_the_models_answer_is_the_nodes_output(sim: SimServer, hub: LLMHub):
    says(sim, "Dear Ada, welcome.")
    flow = agentflow.loads("""
version: "1.0"
metadata: {name: letter}
context: {requires: [name]}
nodes:
  write:
    inputs: [{name: name, type: string}]
    outputs: [{name: letter, type: string}]
    prompt: {role: writer, template: "Write a welcome letter to {{ name }}."}
edges:
  - {from: _input.name, to: write.name}
  - {from: write.letter, to: _output}
""").flow
    assert (await run(flow, {"name": "Ada"}, hub=hub)).output == "Dear Ada, welcome."
    assert asked(sim) == [{"role": "user", "content": "Write a welcome letter to Ada."}]


async def test_a_template_has_loops_conditions_filters_and_the_request_as_context(sim: SimServer, hub: LLMHub):
    flow = agentflow.loads("""
version: "1.0"
metadata: {name: list}
context: {requires: [items, language]}
inputs: {items: {type: array}}
nodes:
  write:
    inputs: [{name: items, type: array}]
    outputs: [{name: text, type: string}]
    prompt:
      role: writer
      system: You are brief.
      template: |
        Describe {{ items | length }} things{% if context.language %} in {{ context.language | upper }}{% endif %}:
        {% for item in items %}{{ loop.index }}. {{ item.name }}; {% endfor %}
edges:
  - {from: _input.items, to: write.items}
  - {from: write.text, to: _output}
""").flow
    await run(flow, {"items": [{"name": "pen"}, {"name": "ink"}], "language": "fr"}, hub=hub)
    system, user = asked(sim)
    assert system == {"role": "system", "content": "You are brief."}
    assert user["content"].split("\n")[:2] == ["Describe 2 things in FR:", "1. pen; 2. ink; "]


async def test_with_an_output_schema_the_answer_is_data_that_fits_it(sim: SimServer, hub: LLMHub):
    says(sim, {"topic": "billing", "urgent": True})
    flow = agentflow.loads("""
version: "1.0"
metadata: {name: sort}
context: {requires: [ticket]}
nodes:
  sort:
    inputs: [{name: ticket, type: string}]
    outputs: [{name: topic, type: string}, {name: urgent, type: boolean}]
    prompt:
      role: writer
      template: "Sort: {{ ticket }}"
      temperature: 0
      output_schema:
        type: object
        properties: {topic: {type: string}, urgent: {type: boolean}}
        required: [topic, urgent]
edges:
  - {from: _input.ticket, to: sort.ticket}
  - {from: sort.topic, to: _output.topic}
  - {from: sort.urgent, to: _output.urgent}
""").flow
    report = await run(flow, {"ticket": "My invoice is wrong"}, hub=hub)
    assert report.output == {"topic": "billing", "urgent": True}


async def test_an_answer_that_does_not_fit_its_schema_is_a_failure(sim: SimServer, hub: LLMHub):
    says(sim, {"score": "very good"})
    flow = agentflow.loads("""
version: "1.0"
metadata: {name: rate}
context: {requires: [text]}
nodes:
  rate:
    inputs: [{name: text, type: string}]
    outputs: [{name: score, type: number}]
    prompt:
      role: writer
      template: "Rate: {{ text }}"
      output_schema: {type: object, properties: {score: {type: number}}, required: [score]}
edges:
  - {from: _input.text, to: rate.text}
  - {from: rate.score, to: _output}
""").flow
    report = await run(flow, {"text": "..."}, hub=hub)
    assert report.error is not None
    assert report.error.node == "rate"
    assert "does not fit output_schema" in report.error.message


async def test_what_follows_a_prompt_on_the_same_node_gets_its_answer(sim: SimServer, hub: LLMHub):
    says(sim, "blue")
    flow = agentflow.loads("""
version: "1.0"
metadata: {name: colour}
context: {requires: [thing]}
nodes:
  colour:
    inputs: [{name: thing, type: string}]
    outputs: [{name: text, type: string}]
    prompt: {role: writer, template: "Which colour is {{ thing }}?"}
    transform:
      mode: declarative
      spec: {op: io.format_response, args: {template: "${thing} is ${prompt_output}"}}
edges:
  - {from: _input.thing, to: colour.thing}
  - {from: colour.text, to: _output}
""").flow
    assert (await run(flow, {"thing": "the sky"}, hub=hub)).output == "the sky is blue"


async def test_a_flow_may_say_once_which_role_its_prompts_use(sim: SimServer, hub: LLMHub):
    flow = agentflow.loads("""
version: "1.0"
metadata: {name: default-role}
context: {requires: [x]}
defaults: {role: spare, max_tokens: 20}
nodes:
  ask:
    inputs: [{name: x, type: string}]
    outputs: [{name: text, type: string}]
    prompt: {template: "{{ x }}"}
edges:
  - {from: _input.x, to: ask.x}
  - {from: ask.text, to: _output}
""").flow
    await run(flow, {"x": "hello"}, hub=hub)
    assert sim.log()[-1].role == "spare"
