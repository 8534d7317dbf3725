"""The flows of configs/ on a real cluster: the same answers in one process, inline and with a deployment per node."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from agentflow import load, plan

from .conftest import CONFIGS, FLOWS, HERE, OWN_MODEL, PLACEMENTS, REQUESTS, Served

pytestmark = pytest.mark.serve


@pytest.mark.parametrize(("flow", "placement"), HERE)
def test_answers_are_the_same_wherever_the_nodes_run(
    flow: str, placement: str, examples: dict[tuple[str, str], Served], local_answers: dict[str, list[Any]]
):
    served = examples[flow, placement]
    responses = [served.predict(request) for request in REQUESTS[flow]]
    assert [response.status_code for response in responses] == [200] * len(responses)
    assert [response.json()["predictions"] for response in responses] == [[one] for one in local_answers[flow]]


def test_the_flows_say_what_their_comments_promise(local_answers: dict[str, list[Any]]):
    desk = local_answers["returns-desk"]
    assert desk[2]["status"] == "ticket", "u2 has a refund rate of 0.9"
    assert {answer["status"] for answer in desk} <= {"answered", "ticket"}
    urgent, calm, person = local_answers["triage"]
    assert urgent["route"].startswith("pager/")
    assert calm["reply"] == "Thank you, Ben. We answer within a day."
    assert "no account unknown" in person["reply"]
    assert len(local_answers["research-brief"][0]["sections"]) == 6


def test_every_node_is_a_deployment_of_its_own_or_runs_in_the_predictor(examples: dict[tuple[str, str], Served]):
    from ray import serve

    for (flow, placement), served in examples.items():
        planned = plan(load(CONFIGS / "flows" / f"{FLOWS[flow]}.yaml").flow)
        nodes = planned.graph.nodes if placement == "per_node" else ()
        sim = {"sim"} if flow in OWN_MODEL else ()
        expected = {flow, *(f"{flow}.{name}" for name in (*nodes, *sim))}
        assert set(serve.status().applications[served.app].deployments) == expected


def test_instances_run_in_parallel_each_with_its_own_trace(examples: dict[tuple[str, str], Served]):
    served = examples["triage", "per_node"]
    instances = [{"ticket": f"number {number}", "account": "a-2"} for number in range(8)]
    response = served.post("/v1/models/triage:predict", {"instances": instances})
    assert Counter(one["reply"] for one in response.json()["predictions"]) == {
        "Thank you, Ben. We answer within a day.": 8
    }


def test_v2_takes_one_tensor_per_input_and_gives_one_per_declared_output(examples: dict[tuple[str, str], Served]):
    served = examples["triage", "inline"]
    metadata = served.get("/v2/models/triage").json()
    assert [tensor["name"] for tensor in metadata["outputs"]] == ["route", "reply"]
    inputs = [
        {"name": "ticket", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]},
        {"name": "account", "shape": [2], "datatype": "BYTES", "data": ["a-2", "unknown"]},
    ]
    response = served.post("/v2/models/triage/infer", {"id": "7", "inputs": inputs}).json()
    assert response["id"] == "7"
    outputs = {tensor["name"]: tensor["data"] for tensor in response["outputs"]}
    assert outputs["reply"] == [
        "Thank you, Ben. We answer within a day.",
        "We could not find the account: the transform raised LookupError: no account unknown at line 5",
    ]


def test_v2_takes_whole_requests_as_json_documents(examples: dict[tuple[str, str], Served]):
    served = examples["research-brief", "inline"]
    document = json.dumps({"topic": "Bees"})
    inputs = [{"name": "request", "shape": [1], "datatype": "BYTES", "data": [document]}]
    response = served.post("/v2/models/research-brief/infer", {"inputs": inputs}).json()
    [tensor] = response["outputs"]
    assert tensor["name"] == "response"
    assert json.loads(tensor["data"][0])["topic"] == "Bees"


def test_a_row_that_is_not_there_fails_the_run_with_a_sentence(examples: dict[tuple[str, str], Served]):
    response = examples["returns-desk", "inline"].predict({"user_id": "nobody", "session_id": "s", "query": "Shoes?"})
    body = response.json()
    assert (response.status_code, body["code"], body["node"]) == (500, "node_failed", "load_shopper")
    assert "the feature group 'shoppers_v2' has no row for user_id 'nobody' as of 20" in body["error"]


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_missing_fields_are_a_400_that_names_them_all(placement: str, examples: dict[tuple[str, str], Served]):
    response = examples["triage", placement].predict({"other": "u1"})
    assert response.status_code == 400
    body = response.json()
    assert body["code"] == "bad_input"
    assert "'ticket', 'account'" in body["error"]
    assert body["trace_id"]
