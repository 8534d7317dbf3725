"""Two tenants with keys of their own, on the real proxy and replicas: their sessions never meet."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from support.command_line import agentflow

from .conftest import CONFIGS, Deploy
from .test_conversation import FLOW, SCRIPT

pytestmark = pytest.mark.serve


def test_two_tenants_with_the_same_session_id_have_two_sessions(deploy: Deploy, store: str, tmp_path: Path):
    flow = tmp_path / "conversation.yaml"
    flow.write_text(FLOW)
    served = deploy("keyed", flow=str(flow), llmhub=str(CONFIGS / "llmhub.sim.yaml"), sim_script=SCRIPT, auth="keys")
    keys = {
        tenant: agentflow("keys", "new", "--scope", tenant, "--principal", "p", "--store", store).out.strip()
        for tenant in ("tenant-1", "tenant-2")
    }
    turn = {"text": "I am Ada", "session_id": "same"}
    assert served.predict(turn).status_code == 401
    for tenant, key in keys.items():
        said = served.predict(turn, headers={"authorization": f"Bearer {key}", "x-scope-id": "tenant-1"})
        assert said.status_code == 200, said.text
        [listed] = agentflow("sessions", "list", "--store", store, "--scope", tenant).out.splitlines()
        assert listed.endswith("same") and " 2 records" in listed
    session = f"{served.base}/v1/sessions/same"
    forgotten = httpx.delete(session, headers={"x-api-key": keys["tenant-1"]}, timeout=60)
    kept = httpx.get(session, headers={"x-api-key": keys["tenant-2"]}, timeout=60)
    assert (forgotten.status_code, kept.status_code, kept.json()["version"]) == (204, 200, 2)
