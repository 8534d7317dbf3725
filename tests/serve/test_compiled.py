"""A flow compiled for Ray Serve: its methods run in the predictor's replica, with the answers of the flow file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from agentflow import load, plan
from flow_runtime import LocalFlow, LocalSettings
from flow_runtime.hub_models import local_models
from llmhub_runtime import LLMHub
from support.compiled import imported, written

from .conftest import CONFIGS, Served

pytestmark = pytest.mark.serve

TRIAGE = CONFIGS / "flows" / "triage.yaml"
LLMHUB = str(CONFIGS / "llmhub.sim.yaml")
REQUESTS = [{"ticket": "The shop is down", "account": name} for name in ("a-1", "a-2", "nobody")]
BY_HAND = """

class TriageAgent(TriageAgent):
    async def node_person(self, inputs: Inputs, ctx: Context) -> Outputs:
        made = await super().node_person(inputs, ctx)
        return {**made, "route": f"{made['route']} by hand"}
"""


async def answered_locally() -> list[Any]:
    flow = load(TRIAGE).flow
    async with (
        LLMHub(config_path=LLMHUB) as hub,
        local_models(flow, hub) as models,
        LocalFlow(flow, models=models, settings=LocalSettings(store="memory:")) as runner,
    ):
        return [(await runner.run(request)).output for request in REQUESTS]


def test_a_compiled_flow_is_served_and_its_methods_run_there(cluster: int, store: str, tmp_path: Path):
    import ray
    from ray import serve

    from agentflow_serve.compiled import AgentArgs

    loaded = load(TRIAGE)
    path = written(plan(loaded.flow), tmp_path, target="ray", places=loaded.source_of)
    text = path.read_text()
    path.write_text(text.replace("\n\ndef app(", f"{BY_HAND}\n\ndef app("))
    with imported(path) as module:
        # Elsewhere replicas import the module; this one lies where only this test looks.
        ray.cloudpickle.register_pickle_by_value(module)
        try:
            target = module.app(AgentArgs(llmhub=LLMHUB, store=store))
            serve.run(target, name="compiled", route_prefix="/compiled")
        finally:
            ray.cloudpickle.unregister_pickle_by_value(module)
    try:
        base = f"http://127.0.0.1:{cluster}/compiled"
        served = Served(app="compiled", model="triage", base=base).wait_until_ready()
        answers = [served.predict(request).json()["predictions"][0] for request in REQUESTS]
        refused = served.predict({"ticket": "x"})
        assert set(serve.status().applications["compiled"].deployments) == {"triage", "triage.sim"}
        assert httpx.get(f"{base}/v2/models/triage", timeout=30).json()["outputs"][0]["name"] == "route"
    finally:
        serve.delete("compiled")
    local = asyncio.run(answered_locally())
    assert local[2]["route"] == "person/other"
    assert answers == [local[0], local[1], {**local[2], "route": "person/other by hand"}]
    assert (refused.status_code, refused.json()["code"]) == (400, "bad_input")
