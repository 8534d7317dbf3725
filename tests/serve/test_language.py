"""Subflows, for_each, loop and caches on a real cluster: the same answers as in one process, from flow files."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agentflow import load
from flow_runtime import LocalFlow
from flow_runtime.hub_models import local_models
from llmhub_runtime import LLMHub

from .conftest import CONFIGS, PLACEMENTS, Deploy

pytestmark = pytest.mark.serve

GREETING = """\
version: "1.0"
metadata: {name: greeting}
context: {requires: [name], optional: [tone]}
inputs: {tone: {default: null}}
nodes:
  ask:
    inputs: [{name: name, type: string}]
    outputs: [{name: text, type: string}]
    prompt: {template: "Greet {{ name }}", role: llm.writer}
    runtime: {cache: {ttl_seconds: 60}}
  check:
    inputs: [{name: name, type: string}]
    outputs: [{name: name, type: string}]
    transform:
      mode: code
      spec: |
        def transform(inputs, context, state):
            if inputs["name"] == "nobody":
                raise LookupError("nobody is here")
            return inputs
edges:
  - {from: _input.name, to: check.name}
  - {from: check.name, to: ask.name}
  - {from: ask.text, to: _output.text}
"""
FLOW = """\
version: "1.0"
metadata: {name: party}
context: {requires: [names]}
inputs: {names: {type: array}}
nodes:
  greet:
    type: subflow
    flow: parts/greeting.yaml
    inputs: [{name: name, type: array}]
    outputs: [{name: text, type: array}]
    for_each: {input: name, on_item_error: collect}
  halve:
    inputs: [{name: n, type: array}]
    outputs: [{name: n, type: array}]
    loop: {until: "len(n) <= 1"}
    transform: {mode: declarative, spec: {op: transform.filter, args: {input: "${n}", expression: "item != 'nobody'"}}}
edges:
  - {from: _input.names, to: greet.name}
  - {from: greet.text, to: _output.greetings}
  - {from: _input.names, to: halve.n}
  - {from: halve.n, to: _output.left}
"""
REQUESTS = [{"names": ["Ada", "nobody"]}, {"names": ["Ada"]}, {"names": []}]


def written(folder: Path) -> Path:
    (folder / "parts").mkdir()
    (folder / "parts" / "greeting.yaml").write_text(GREETING)
    path = folder / "party.yaml"
    path.write_text(FLOW)
    return path


async def answered_locally(path: Path) -> list[Any]:
    flow = load(path).flow
    async with (
        LLMHub(config_path=str(CONFIGS / "llmhub.sim.yaml")) as hub,
        local_models(flow, hub) as models,
        LocalFlow(flow, models=models) as runner,
    ):
        reports = [await runner.run(request) for request in REQUESTS]
    assert [report.error for report in reports] == [None] * len(reports)
    return [report.output for report in reports]


def test_answers_are_the_same_wherever_the_nodes_run(deploy: Deploy, hub: dict[str, Any], tmp_path: Path):
    path = written(tmp_path)
    local = asyncio.run(answered_locally(path))
    failure = local[0]["greetings"][1]
    assert "in the flow 'greeting': node 'check' failed" in failure["reason"]
    assert failure["node"] == "greet"
    assert local[1:] == [{"greetings": [local[0]["greetings"][0]], "left": ["Ada"]}, {"greetings": [], "left": []}]
    for placement in PLACEMENTS:
        served = deploy(f"party-{placement.replace('_', '-')}", flow=str(path), llmhub=hub, placement=placement)
        answers = [served.predict(request).json()["predictions"][0] for request in REQUESTS]
        assert answers == local, placement
