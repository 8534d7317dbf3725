"""A prompt in the predictor whose tools run elsewhere, and a tool that has one inside its own process."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import CONFIGS, Deploy

pytestmark = pytest.mark.serve


def node(template: str, *tools: str, **runtime: str) -> dict[str, Any]:
    offered = [{"name": name, "maps_to": name} for name in tools]
    return {
        "outputs": [{"name": "text", "type": "string"}],
        "prompt": {"role": "llm.writer", "template": template, "tools": offered},
        "runtime": runtime,
    }


FLOW = {
    "version": "1.0",
    "metadata": {"name": "advice"},
    "context": {"requires": ["question"]},
    "nodes": {
        "ask": {
            **node("ask {{ question }}", "expert", placement="inline"),
            "inputs": [{"name": "question", "type": "string"}],
        },
        "expert": node("what then?", "book"),
        "book": node("read on", placement="inline"),
    },
    "edges": [{"from": "_input.question", "to": "ask.question"}, {"from": "ask.text", "to": "_output"}],
}
SCRIPT = {
    "rules": [
        {"match": {"contains": "read on"}, "reply": {"answer": "chapter nine"}},
        {"match": {"contains": "chapter nine"}, "reply": {"answer": "wait"}},
        {"match": {"contains": "what then?"}, "reply": {"tool_calls": [{"name": "book"}]}},
        {"match": {"contains": "wait"}, "reply": {"answer": "you had better wait"}},
        {"match": {"contains": "ask"}, "reply": {"tool_calls": [{"name": "expert"}]}},
    ]
}


def test_a_tool_answers_from_its_own_deployment_and_its_model_calls_count(deploy: Deploy):
    served = deploy("advice", flow=FLOW, llmhub=str(CONFIGS / "llmhub.sim.yaml"), sim_script=SCRIPT)
    response = served.predict({"question": "now?"})
    assert response.json() == {"predictions": ["you had better wait"]}
    assert len(served.sim_log()) == 5
    assert response.headers["x-model-use"].startswith("calls=5, ")
