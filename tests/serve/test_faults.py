"""A served flow when something breaks: a replica dies, a client leaves, time runs out, a model fails."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from typing import Any

import httpx
import pytest

from .conftest import CONFIGS, Deploy, Served

pytestmark = pytest.mark.serve

FLOW = """
version: "1.0"
metadata: {name: fragile}
context: {requires: [x]}
nodes:
  ask:
    inputs: [{name: x, type: string}]
    outputs: [{name: text, type: string}]
    prompt: {template: "{{ x }}", role: llm.writer}
  pid:
    inputs: [{name: text, type: string}]
    outputs: [{name: all, type: object}]
    runtime: {idempotent: true}
    transform:
      mode: code
      spec: |
        import asyncio, os
        async def transform(inputs, context, state):
            if "past the engine" in inputs["text"]:
                from llmhub_runtime import LLMHub, parse_runtime_config
                role = {"provider": "sim", "model": "m", "mode": "chat"}
                config = {"project": "p", "env": "e", "providers": {"sim": {}}, "roles": {"r": role}}
                async with LLMHub(config_obj=parse_runtime_config(config)) as hub:
                    await hub.acompletion("r", [{"role": "user", "content": "hi"}])
            await asyncio.sleep(0.5 if "slow" in inputs["text"] else 0)
            return {"all": {"text": inputs["text"], "pid": os.getpid()}}
edges:
  - {from: _input.x, to: ask.x}
  - {from: ask.text, to: pid.text}
  - {from: pid.all, to: _output}
"""

SCRIPT: dict[str, Any] = {
    "rules": [
        {"match": {"contains": "hang"}, "reply": {"fault": {"kind": "hang"}}},
        {"match": {"contains": "broken"}, "reply": {"fault": {"kind": "error", "status": 500}}},
        {"match": {"contains": "slow"}, "reply": {"answer": "slow answer"}},
    ]
}


@pytest.fixture(scope="module")
def fragile(deploy: Deploy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    flow = tmp_path_factory.mktemp("flow") / "fragile.yaml"
    flow.write_text(FLOW)
    yield deploy(
        "fragile",
        flow=str(flow),
        llmhub=str(CONFIGS / "llmhub.sim.yaml"),
        sim_script=SCRIPT,
        limits={"deadline_s": 20},
    )


def until(condition: Callable[[], object], *, within_s: float = 30) -> None:
    give_up = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up, "it did not come true in time"
        time.sleep(0.05)


def test_a_failing_model_is_one_error_with_the_node_and_the_trace_id(fragile: Served):
    response = fragile.predict({"x": "broken"}, headers={"x-trace-id": "my-trace"})
    assert response.status_code == 500
    body = response.json()
    assert (body["code"], body["node"], body["trace_id"]) == ("node_failed", "ask", "my-trace")
    assert body["error"].startswith("node 'ask' failed: ")
    assert "Traceback" not in response.text


def test_the_clients_deadline_is_kept_and_the_model_call_is_given_up(fragile: Served):
    began = time.monotonic()
    response = fragile.predict({"x": "hang for the deadline"}, headers={"x-deadline-seconds": "1"})
    assert response.status_code == 408
    assert response.json()["code"] == "deadline_exceeded"
    assert time.monotonic() - began < 8
    until(lambda: outcome_of(fragile, "hang for the deadline") == "client_disconnected")


def outcome_of(served: Served, text: str) -> str | None:
    for entry in served.sim_log():
        if entry["request"]["messages"][-1]["content"] == text:
            return entry["outcome"]
    return None


def test_a_client_that_leaves_cancels_the_model_call(fragile: Served):
    host, port = fragile.base.removeprefix("http://").split("/")[0].split(":")
    body = b'{"instances": [{"x": "hang until I leave"}]}'
    head = f"POST /fragile/v1/models/fragile:predict HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(head.encode() + f"content-length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: outcome_of(fragile, "hang until I leave") is not None)
    until(lambda: outcome_of(fragile, "hang until I leave") == "client_disconnected", within_s=10)


def test_clients_cannot_switch_the_deadline_off_with_serves_own_headers(fragile: Served):
    headers = {"x-request-timeout-seconds": "0", "x-request-disconnect-disabled": "?1", "x-deadline-seconds": "1"}
    assert fragile.predict({"x": "hang with headers"}, headers=headers).status_code == 408


def test_a_killed_replica_of_a_repeatable_node_costs_no_request(fragile: Served):
    victim = fragile.predict({"x": "plain"}).json()["predictions"][0]["pid"]
    responses: list[httpx.Response] = []
    caller = threading.Thread(target=lambda: responses.append(fragile.predict({"x": "slow please"})))
    caller.start()
    until(lambda: outcome_of(fragile, "slow please") == "finished")
    os.kill(victim, signal.SIGKILL)
    caller.join(timeout=60)
    assert responses[0].status_code == 200, responses[0].text
    assert responses[0].json()["predictions"][0]["pid"] != victim


def test_the_predictor_says_that_the_graph_is_not_ready_while_a_node_has_no_replica(fragile: Served):
    pid = fragile.predict({"x": "plain"}).json()["predictions"][0]["pid"]
    assert fragile.get("/v2/models/fragile/ready").status_code == 200
    os.kill(pid, signal.SIGKILL)
    until(lambda: fragile.get("/v2/models/fragile/ready").status_code == 503, within_s=20)
    until(lambda: fragile.get("/v2/models/fragile/ready").status_code == 200)
    assert fragile.predict({"x": "plain"}).status_code == 200


def test_a_restarted_simulated_model_is_found_at_its_new_address(fragile: Served):
    import ray

    sim = fragile.handle("sim")
    before = sim.address.remote().result(timeout_s=30)
    [actor] = [name for name in ray.util.list_named_actors(all_namespaces=True) if "fragile.sim" in name["name"]]
    ray.kill(ray.get_actor(actor["name"], namespace=actor["namespace"]))
    until(lambda: sim_address(sim) not in (None, before))
    assert fragile.predict({"x": "after the restart"}).status_code == 200


def sim_address(sim: Any) -> str | None:
    try:
        return sim.address.remote().result(timeout_s=5)
    except Exception:
        return None


def test_too_deep_too_large_and_malformed_bodies_are_refused(fragile: Served):
    url = f"{fragile.base}/v1/models/fragile:predict"
    deep = b'{"instances": [' + b"[" * 5000 + b"]" * 5000 + b"]}"
    assert httpx.post(url, content=deep, timeout=30).status_code == 400
    large = b'{"instances": [{"x": "' + b"a" * (5 * 1024 * 1024) + b'"}]}'
    assert httpx.post(url, content=large, timeout=30).status_code == 413
    assert httpx.post(url, content=b"{", timeout=30).status_code in (400, 422)


def test_every_model_call_has_its_row_in_the_store_and_the_answer_says_what_it_took(fragile: Served, store: str):
    response = fragile.predict({"x": "count me"}, headers={"x-trace-id": "counted"})
    with closing(sqlite3.connect(store.removeprefix("sqlite:///"))) as database:
        rows = database.execute(
            "SELECT attempt_id, status, node, role, input_tokens, output_tokens, cost_micro FROM calls"
            " WHERE trace_id = 'counted'"
        ).fetchall()
    [(attempt_id, status, node, role, tokens_in, tokens_out, cost)] = rows
    assert (status, node, role) == ("settled", "ask", "llm.writer")
    cost_usd = f"{Decimal(cost) / 1_000_000:f}"
    assert response.headers["x-model-use"] == (
        f"calls=1, input_tokens={tokens_in}, output_tokens={tokens_out}, cost_usd={cost_usd}"
    )
    assert attempt_id in [entry["attempt_id"] for entry in fragile.sim_log()]


def test_code_that_calls_a_hub_past_the_engine_is_refused(fragile: Served):
    body = fragile.predict({"x": "go past the engine"}).json()
    assert body["node"] == "pid"
    assert "calls an LLMHub directly" in body["error"]
