"""interest_tagger on a real cluster: the profile is the answer, it is stored, and the webhook hears of it."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from agentflow_serve.serve_config import read_config
from flow_runtime.feature_store.names import Named
from flow_runtime.feature_store.protocol import Read, Source
from support.feature_stores import local_store
from support.http_stub import answer, http_stub, saying

from .conftest import CONFIGS, Deploy

pytestmark = pytest.mark.serve

TAGS = {"interests": ["running"], "style": "premium"}
SCRIPT = {"rules": [{"match": {"contains": "running shoes"}, "reply": {"answer": json.dumps(TAGS)}}]}


async def test_the_profile_is_the_answer_and_is_stored_and_announced(deploy: Deploy, tmp_path: Path):
    features = shutil.copytree(CONFIGS / "features", tmp_path / "features")
    [app] = read_config(CONFIGS / "interest_tagger.yaml")["applications"]
    async with http_stub(saying(answer(b"{}", Content_Type="application/json"))) as hook:
        flow = tmp_path / "flow.yaml"
        text = (CONFIGS / "flows" / "interest_tagger.yaml").read_text()
        assert "https://hooks.example.test/" in text
        flow.write_text(text.replace("https://hooks.example.test/", f"http://127.0.0.1:{hook.port}/"))
        here = {
            "flow": str(flow),
            "llmhub": str(CONFIGS / "llmhub.sim.yaml"),
            "feature_store": f"local:{features}",
            "placement": "inline",
            "allow_hosts": (f"127.0.0.1:{hook.port}",),
            "sim_script": SCRIPT,
        }
        served = await asyncio.to_thread(deploy, "interest-tagger", **{**app["args"], **here})
        request = {"user_id": "u1", "event_time": "2026-03-01T12:00:00+00:00", "auth": {"token": "secret-1"}}
        response = await asyncio.to_thread(served.predict, request)
        profile = {"user_id": "u1", "at": request["event_time"], **TAGS}
        assert response.json() == {"predictions": [profile]}
        [announced] = hook.requests
        assert (announced.line, announced.headers["authorization"]) == ("POST /profiles/u1 HTTP/1.1", "Bearer secret-1")
        assert json.loads(announced.body) == profile
    async with local_store(features) as store:
        assert await store.read(Source(Named("interest_profiles", 1)), Read({"user_id": "u1"}), None) == profile
