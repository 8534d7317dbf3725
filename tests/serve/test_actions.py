"""A served flow that waits for a person, who answers over HTTP."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .conftest import Deploy, Served

pytestmark = pytest.mark.serve

FLOW = """
version: "1.0"
metadata: {name: asking}
context: {requires: [order]}
nodes:
  ask:
    inputs: [{name: order, type: string}]
    outputs: [{name: reply, type: object}]
    transform:
      mode: declarative
      spec:
        op: action.require
        args: {type: approve, payload: {order: "${order}"}, timeout_seconds: 60}
edges:
  - {from: _input.order, to: ask.order}
  - {from: ask.reply, to: _output.reply}
"""


def the_open_one(served: Served) -> dict[str, Any]:
    give_up = time.monotonic() + 30
    while not (found := served.get("/v1/actions?status=pending").json()["actions"]):
        assert time.monotonic() < give_up, "nobody was asked"
        time.sleep(0.05)
    [action] = found
    return action


def test_a_run_waits_for_the_answer_to_its_question(deploy: Deploy, tmp_path: Path):
    flow = tmp_path / "asking.yaml"
    flow.write_text(FLOW)
    served = deploy("asking", flow=str(flow))
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(served.predict, {"order": "o-1"})
        action = the_open_one(served)
        assert (action["type"], action["payload"]) == ("approve", {"order": "o-1"})
        where = f"/v1/actions/{action['action_id']}"
        assert served.post(f"{where}/resolve", {"resolution": {"approved": True}}).status_code == 200
        response = run.result(timeout=60)
    assert response.json() == {"predictions": [{"reply": {"approved": True}}]}
    assert served.post(f"{where}/resolve", {"resolution": {"approved": False}}).status_code == 409
    assert served.get(where).json()["resolution"] == {"approved": True}
