"""A flow behind the KServe protocols: its runs, its failures and its health, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any, get_args

import httpx
import pytest
from prometheus_client import REGISTRY
from ray.serve._private.thirdparty.get_asgi_route_name import extract_route_patterns

from agentflow.failure import Refused
from agentflow.signature import Signature
from agentflow_serve.call import CallMeta
from agentflow_serve.errors import (
    STATUS,
    AppInvalid,
    PredictorError,
    RequestRefused,
    RunFailed,
    public_sentence,
)
from agentflow_serve.kserve_app import build_predictor_app
from agentflow_serve.limits import EdgeLimits
from agentflow_serve.readiness import Readiness
from runtime_core.context import Identity
from runtime_core.report import ErrorCode, RunError
from support.predictor_server import SHOUT, Runner, Stall, serving
from support.waiting import until

V1, V2 = "/v1/models/m:predict", "/v2/models/m/infer"
ANY = Signature()


@asynccontextmanager
async def predictor(
    runner: Runner, *, signature: Signature = ANY, health: Any = None, **limits: Any
) -> AsyncIterator[httpx.AsyncClient]:
    app = build_predictor_app(name="m", signature=signature, runner=runner, limits=EdgeLimits(**limits), health=health)
    async with (
        serving(app) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
    ):
        yield client


def v1(*instances: Any) -> dict[str, Any]:
    return {"instances": list(instances)}


def v2(*documents: Any) -> dict[str, Any]:
    texts = [json.dumps(document) for document in documents]
    return {"inputs": [{"name": "request", "shape": [len(texts)], "datatype": "BYTES", "data": texts}]}


def giving(value: Any) -> Runner:
    async def answer(request: dict[str, Any], call: CallMeta) -> Any:
        return value

    return Runner(answer)


async def echo(request: dict[str, Any], call: CallMeta) -> Any:
    return request


# ---- runs ---------------------------------------------------------------------------------------------


async def test_the_same_flow_answers_both_protocols() -> None:
    async with predictor(Runner(), signature=SHOUT) as client:
        first = await client.post(V1, json=v1({"text": "hi", "n": 2}))
        assert first.json() == {"predictions": [{"loud": "HI", "double": 4.0, "seen": {"text": "hi", "n": 2}}]}
        second = (await client.post(V2, json=v2({"text": "hi", "n": 2}))).json()
        assert [output["data"] for output in second["outputs"]] == [["HI"], [4.0], ['{"text":"hi","n":2}']]


async def test_the_requests_of_a_batch_run_side_by_side_and_come_back_in_order() -> None:
    meeting = asyncio.Barrier(3)

    async def meet(request: dict[str, Any], call: CallMeta) -> Any:
        await meeting.wait()  # passes only when all three runs are here at once
        await asyncio.sleep(0.02 * request["wait"])
        return request["wait"]

    async with predictor(Runner(meet)) as client:
        asked = [{"wait": 2}, {"wait": 0}, {"wait": 1}]
        assert (await client.post(V1, json=v1(*asked))).json() == {"predictions": [2, 0, 1]}
        answer = (await client.post(V2, json=v2(*asked))).json()["outputs"][0]
        assert answer["data"] == ["2", "0", "1"]


async def test_each_run_has_its_own_trace_id_and_key_that_lead_back_to_the_request() -> None:
    runner = Runner(echo)
    headers = {"x-trace-id": "t1", "idempotency-key": "k1", "x-request-id": "r1", "x-deadline-seconds": "7"}
    async with predictor(runner) as client:
        response = await client.post(V1, json=v1({}), headers=headers)
        assert response.headers["x-trace-id"] == "t1"
        await client.post(V1, json=v1({}, {}), headers=headers)
    alone, first, second = (call for _, call in runner.calls)
    assert (alone.trace_id, alone.idempotency_key) == ("t1", "k1")
    assert [(c.trace_id, c.idempotency_key) for c in (first, second)] == [("t1.0", "k1 0"), ("t1.1", "k1 1")]
    assert (alone.identity, alone.headers) == (Identity(), {"x-request-id": "r1"})
    assert alone.deadline_s is not None and 0 < alone.deadline_s <= 7


async def test_binary_answers_follow_the_json_as_their_sizes_say() -> None:
    body = {**v2({"text": "é"}), "parameters": {"binary_data_output": True}, "outputs": [
        {"name": "loud", "parameters": {"binary_data": True}},
        {"name": "double"},
    ]}  # fmt: skip
    async with predictor(Runner(), signature=SHOUT) as client:
        response = await client.post(V2, json=body)
    length = int(response.headers["inference-header-content-length"])
    loud, double = json.loads(response.content[:length])["outputs"]
    assert response.content[length:] == b"\x02\0\0\0\xc3\x89"
    assert loud["parameters"]["binary_data_size"] == len(response.content) - length
    assert double["data"] == [0.0]


# ---- failures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", get_args(ErrorCode))
async def test_a_failed_run_is_answered_with_the_status_of_its_code(code: ErrorCode) -> None:
    error = RunError(code, "The node has no luck today.", node="lucky")
    async with predictor(giving(error)) as client:
        for path, body in ((V1, v1({})), (V2, v2({}))):
            response = await client.post(path, json=body, headers={"x-trace-id": "t7"})
            retry_after = 1.0 if STATUS[code] == 503 else None
            assert response.status_code == STATUS[code]
            assert response.headers.get("retry-after") == ("1" if retry_after else None)
            assert response.json() == {
                "error": "The node has no luck today.",
                "code": code,
                "node": "lucky",
                "trace_id": "t7",
                "retry_after": retry_after,
            }


@pytest.mark.parametrize(
    ("code", "refused", "retry_after", "status"),
    [
        ("budget_exceeded", Refused("too_large", "max_tokens_total", "total"), None, 402),
        ("budget_exceeded", Refused("budget_exceeded", "max_cost_daily", "daily"), 7200.5, 429),
        ("policy_denied", Refused("deny"), None, 403),
    ],
)
async def test_a_refusal_says_for_programs_what_was_not_allowed(
    code: ErrorCode, refused: Refused, retry_after: float | None, status: int
) -> None:
    async with predictor(giving(RunError(code, "No.", retry_after=retry_after, refused=refused))) as client:
        for path, body in ((V1, v1({})), (V2, v2({}))):
            response = await client.post(path, json=body)
            assert response.status_code == status
            assert response.headers.get("retry-after") == (None if retry_after is None else "7201")
            assert {**asdict(refused), "code": code, "retry_after": retry_after}.items() <= response.json().items()


def test_every_code_of_a_run_has_a_status() -> None:
    assert set(get_args(ErrorCode)) <= set(STATUS)


@pytest.mark.parametrize(
    ("told", "body", "header"),
    [(2.2, 2.2, "3"), (0.0, 0.0, "0"), (math.inf, 1.0, "1"), (1e9, 3600.0, "3600")],
)
async def test_the_time_to_wait_is_passed_on_within_reason(told: float, body: float, header: str) -> None:
    async with predictor(giving(RunError("overloaded", "Busy.", retry_after=told))) as client:
        response = await client.post(V1, json=v1({}))
    assert (response.json()["retry_after"], response.headers["retry-after"]) == (body, header)


@pytest.mark.parametrize(("path", "body", "called"), [(V1, v1, "instances"), (V2, v2, "row")])
async def test_one_failed_run_fails_the_batch_names_its_index_and_cancels_the_others(
    path: str, body: Any, called: str
) -> None:
    stall = Stall()

    async def answer(request: dict[str, Any], call: CallMeta) -> Any:
        if "bad" not in request:
            return await stall(request, call)
        await stall.started.wait()
        return RunError("bad_input", "It is bad.")

    async with predictor(Runner(answer)) as client:
        response = await client.post(path, json=body({}, {"bad": 1}, {}), headers={"x-trace-id": "t"})
    assert response.status_code == 400
    assert response.json()["error"] == f"{called}[1]: It is bad."
    assert response.json()["trace_id"] == "t.1"
    assert stall.cancels == 2


async def test_a_defect_is_answered_without_a_word_about_the_server(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(request: dict[str, Any], call: CallMeta) -> Any:
        raise FileNotFoundError(2, "No such file or directory", "/srv/secret/model.bin")

    async with predictor(Runner(broken)) as client:
        for instances in (v1({}), v1({}, {})):
            response = await client.post(V1, json=instances)
            assert response.status_code == 500
            assert response.json()["code"] == "internal"
            assert response.json()["trace_id"] == response.headers["x-trace-id"]
            assert "secret" not in response.text and "Traceback" not in response.text
    assert "/srv/secret/model.bin" in caplog.text


LEAKY = """\x1b[36mray::node()\x1b[39m failed: [Errno 2] No such file or directory: '/srv/data/x.bin'
at /opt/app/lib/node.py:17 in File "/opt/app/lib/node.py", line 3, in run
Traceback (most recent call last):
  File "/opt/app/lib/node.py", line 17, in run
"""


async def test_a_nodes_message_loses_tracebacks_files_colours_and_line_feeds() -> None:
    async with predictor(giving(RunError("node_failed", LEAKY))) as client:
        error = (await client.post(V1, json=v1({}))).json()["error"]
    assert error == "ray::node() failed: [Errno 2] No such file or directory: <file> at <file> in <file>"


@pytest.mark.parametrize("text", ["GET http://host/a/b.html gave 404", "see /v1/models/m", "1/2/3", "a 'quoted' word"])
def test_a_sentence_without_files_of_the_server_stays_as_it_is(text: str) -> None:
    assert public_sentence(text) == text


def test_a_sentence_is_never_empty_and_never_endless() -> None:
    assert public_sentence("Traceback (most recent call last):\n  boom")
    assert len(public_sentence("'/a" * 1_000_000)) == 2000


@pytest.mark.parametrize("output", [math.nan, {"a": [math.inf]}, {1, 2}, "\ud800", 2**70])
@pytest.mark.parametrize(("path", "body"), [(V1, v1({})), (V2, v2({}))])
async def test_an_output_that_is_not_json_is_an_error_and_never_half_an_answer(
    output: Any, path: str, body: Any
) -> None:
    async with predictor(giving(output)) as client:
        response = await client.post(path, json=body)
    assert (response.status_code, response.json()["code"]) == (500, "bad_output")
    assert "output is not JSON" in response.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs":[{"name":"n","shape":[1],"datatype":"FP64","data":[NaN]}]}',
        b'{"inputs":[{"name":"n","shape":[1],"datatype":"FP64","data":[1e999]}]}',
        b'{"inputs":NaN}',
        b'{"id":"\\ud800","inputs":[]}',
        b'{"inputs":[],"parameters":{"a":-Infinity}}',
    ],
)
async def test_v2_json_that_only_python_reads_is_the_clients_error(body: bytes) -> None:
    async with predictor(Runner(echo)) as client:
        response = await client.post(V2, content=body, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (400, "bad_json")


async def test_outputs_that_do_not_exist_cost_no_run() -> None:
    runner = Runner(echo)
    async with predictor(runner) as client:
        response = await client.post(V2, json={**v2({}), "outputs": [{"name": "x"}]})
    assert response.status_code == 400
    assert runner.calls == []


def test_errors_cross_processes_with_their_facts() -> None:
    for error in (
        AppInvalid("no"),
        PredictorError("no", trace_id="t"),
        RequestRefused("no", status=413, code="body_too_large"),
        RunFailed("no", status=503, code="node_lost", node="n", trace_id="t", retry_after=2.0),
    ):
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), copy.args, copy.__dict__) == (type(error), error.args, error.__dict__)


# ---- time and the connection --------------------------------------------------------------------------


@pytest.mark.parametrize("body", [v1({}), v1({}, {}, {})])
async def test_a_client_that_leaves_cancels_all_runs_of_its_request(body: Any) -> None:
    stall = Stall()
    runner = Runner(stall)
    app = build_predictor_app(name="m", signature=ANY, runner=runner, limits=EdgeLimits())
    async with serving(app) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        text = json.dumps(body).encode()
        writer.write(b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n" % (V1.encode(), len(text)))
        writer.write(b"content-type: application/json\r\n\r\n" + text)
        runs = len(body["instances"])
        await until(lambda: len(runner.calls) == runs)
        writer.transport.abort()
        await until(lambda: stall.cancels == runs, within_s=0.5)


async def test_the_deadline_ends_a_run_that_ignores_it() -> None:
    stall = Stall()
    async with predictor(Runner(stall), deadline_s=30) as client:
        response = await client.post(V2, json=v2({}), headers={"x-deadline-seconds": "0.1"})
        assert response.status_code == 408
        assert response.json()["code"] == "deadline_exceeded"
        await asyncio.wait_for(stall.cancelled.wait(), 20)


# ---- health -------------------------------------------------------------------------------------------


class Health:
    def __init__(self) -> None:
        self.broken: Any = None
        self.asked = 0

    async def __call__(self) -> None:
        self.asked += 1
        if self.broken is not None:
            await self.broken()


async def _raise() -> None:
    raise ConnectionError("no replica of node x")


async def _hang() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("broken", [_raise, _hang])
async def test_readiness_is_what_the_health_check_says(broken: Any) -> None:
    health = Health()
    async with predictor(Runner(echo), health=health, health_timeout_s=0.05) as client:
        for path in ("/v2/models/m/ready", "/v1/models/m"):
            health.broken = None
            assert (await client.get(path)).json() == {"name": "m", "ready": True}
            health.broken = broken
            response = await client.get(path)
            assert (response.status_code, response.json()) == (
                503,
                {"error": "Model with name m is not ready."},
            )
        assert (await client.get("/v2/health/live")).json() == {"live": True}


async def test_requests_wait_for_the_first_yes_and_ask_no_more() -> None:
    health = Health()
    health.broken = _raise
    readiness = Readiness(health, timeout_s=1)
    assert not await readiness.begun()
    health.broken = None
    assert await readiness.begun()
    health.broken = _raise
    asked = health.asked
    assert await readiness.begun()
    assert health.asked == asked
    assert not await readiness.now()


async def test_nothing_can_be_loaded_or_unloaded() -> None:
    async with predictor(Runner(echo)) as client:
        for verb in ("load", "unload"):
            for model in ("m", "nobody"):
                response = await client.post(f"/v2/repository/models/{model}/{verb}")
                assert response.status_code == 501
                assert "not supported" in response.json()["error"]
        assert (await client.post(V1, json=v1({}))).is_success
        assert (await client.get("/v2/models")).json() == {"models": ["m"]}


def test_serve_finds_the_routes_that_it_names_in_its_metrics() -> None:
    app = build_predictor_app(name="m", signature=ANY, runner=Runner(), limits=EdgeLimits())
    assert {patterns.path for patterns in extract_route_patterns(app)} >= {
        "/v1/models/{model_name}:predict",
        "/v2/models/{model_name}/infer",
    }


# ---- the process --------------------------------------------------------------------------------------


async def test_kserve_leaves_no_log_handlers_and_no_measurements_in_the_process() -> None:
    async with predictor(Runner(echo)) as client:
        await client.post(V1, json=v1({}))
    assert logging.getLogger("kserve").handlers == []
    assert logging.getLogger("uvicorn").handlers == []
    assert REGISTRY.get_sample_value("request_predict_seconds_count", {"model_name": "m"}) is None


async def test_a_clients_mistake_forges_no_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with predictor(Runner(echo)) as client:
            assert (await client.get("/v2/models/x%0aERROR%20forged")).status_code == 404
    ours = [r.getMessage() for r in caplog.records if r.name.startswith(("agentflow", "kserve", "uvicorn"))]
    assert any("forged" in message for message in ours)
    assert not any("\n" in message for message in ours)
