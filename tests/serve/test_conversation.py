"""Conversations over HTTP: every process that takes part is killed between turns, and tenants never meet."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import psutil
import pytest

from support.command_line import agentflow

from .conftest import CONFIGS, Deploy, Served

pytestmark = pytest.mark.serve

FLOW = """
version: "1.0"
metadata: {name: conversation}
context: {requires: [text, session_id]}
nodes:
  chat:
    inputs: [{name: text, type: string}]
    outputs: [{name: answer, type: string}]
    prompt: {template: "{{ text }}", role: llm.writer, memory: session}
edges:
  - {from: _input.text, to: chat.text}
  - {from: chat.answer, to: _output.answer}
"""
ANSWERS = {"I am Ada": "Hello Ada", "What is 1 + 1?": "It is 2", "Who am I?": "You are Ada"}
# The first rule that matches anything in the conversation counts, so the last turn comes first.
SCRIPT: dict[str, Any] = {
    "rules": [{"match": {"contains": asked}, "reply": {"answer": ANSWERS[asked]}} for asked in reversed(ANSWERS)]
}


@pytest.fixture(scope="module")
def keyless(deploy: Deploy, tmp_path_factory: pytest.TempPathFactory) -> Served:
    flow = tmp_path_factory.mktemp("flow") / "conversation.yaml"
    flow.write_text(FLOW)
    llmhub = str(CONFIGS / "llmhub.sim.yaml")
    return deploy("conversation", flow=str(flow), llmhub=llmhub, sim_script=SCRIPT, auth="keys")


def as_tenant(name: str, keyless: Served, store: str) -> Served:
    key = agentflow("keys", "new", "--scope", name, "--principal", "p", "--store", store).out.strip()
    return replace(keyless, headers={"x-api-key": key})


@pytest.fixture(scope="module")
def served(keyless: Served, store: str) -> Served:
    return as_tenant("tenant-0", keyless, store)


def say(served: Served, text: str, session_id: str) -> str:
    response = served.predict({"text": text, "session_id": session_id})
    assert response.status_code == 200, response.text
    return response.json()["predictions"][0]["answer"]


def processes() -> dict[int, str]:
    """The app's replicas but for the simulated model, and its shared actor, by process id."""
    found: dict[int, str] = {}
    for child in psutil.Process().children(recursive=True):
        try:
            title = (child.cmdline() or [""])[0]
        except psutil.Error:
            continue
        if title.startswith(("ray::ServeReplica:conversation:", "ray::SessionLedger")) and ".sim" not in title:
            found[child.pid] = title
    return found


def kill_all(served: Served) -> None:
    """Kill the processes, and return when others have taken their places."""
    victims = all_processes()
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    all_processes(but=victims)
    served.wait_until_ready()


def all_processes(but: Mapping[int, str] | None = None) -> dict[int, str]:
    """Predictor, node replica and actor, once all three are there; `but` are those that were there before."""
    give_up = time.monotonic() + 120
    while len(found := {pid: title for pid, title in processes().items() if pid not in (but or {})}) < 3:
        assert time.monotonic() < give_up, f"there were {but}, and now there are {found}"
        time.sleep(0.2)
    return found


def test_three_turns_are_one_conversation_although_the_replicas_are_killed_between_them(served: Served):
    for number, (text, answer) in enumerate(ANSWERS.items()):
        if number:
            kill_all(served)
        assert say(served, text, "ada") == answer

    asked = [entry["request"]["messages"] for entry in served.sim_log()]
    said = [each for turn in ANSWERS.items() for each in turn]
    assert [[message["content"] for message in messages] for messages in asked] == [said[:1], said[:3], said[:5]]

    shown = served.get("/v1/sessions/ada").json()
    assert [record["text"] for record in shown["records"]] == said
    assert {record["node"] for record in shown["records"]} == {"chat"}


def test_a_deleted_session_and_another_one_begin_anew(served: Served):
    for session_id in ("bob", "cleo", "bob"):
        say(served, "I am Ada", session_id)
        assert len(served.get(f"/v1/sessions/{session_id}").json()["records"]) == 2
        assert served.delete(f"/v1/sessions/{session_id}").status_code == 204
    assert served.get("/v1/sessions/bob").status_code == 404
    assert [len(entry["request"]["messages"]) for entry in served.sim_log()[-3:]] == [1, 1, 1]


def test_two_tenants_with_the_same_session_id_have_two_sessions(keyless: Served, store: str):
    tenants = {name: as_tenant(name, keyless, store) for name in ("tenant-1", "tenant-2")}
    turn = {"text": "I am Ada", "session_id": "same"}
    assert keyless.predict(turn).status_code == 401
    for name, tenant in tenants.items():
        bearer = {"authorization": f"Bearer {tenant.headers['x-api-key']}"}
        said = keyless.predict(turn, headers={**bearer, "x-scope-id": "tenant-1"})
        assert said.status_code == 200, said.text
        [listed] = agentflow("sessions", "list", "--store", store, "--scope", name).out.splitlines()
        assert listed.endswith("same") and " 2 records" in listed
    assert tenants["tenant-1"].delete("/v1/sessions/same").status_code == 204
    kept = tenants["tenant-2"].get("/v1/sessions/same")
    assert (kept.status_code, kept.json()["version"]) == (200, 2)
