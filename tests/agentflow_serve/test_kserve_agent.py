"""A flow compiled for kserve: as a model in this process, and in kserve's own server as a process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
import yaml
from kserve import InferInput, InferRequest
from kserve.errors import InvalidInput

from agent_runtime import ActionManager, ActionRecord, Ledger
from agent_runtime.actions.sql_store import SqlActionStore
from agent_runtime.ledger.writers import SqlLedgerWriter
from agentflow import loads, plan
from agentflow_serve.compiled.args import AgentArgs, args_from
from agentflow_serve.errors import AppInvalid, RunFailed
from flow_runtime import LocalSettings
from flow_runtime.scripted_models import ScriptedModels
from llmhub_runtime.sim import SimServer
from runtime_core.stores import open_database
from support.compiled import imported, written
from support.ports import free_port

FLOW = """
version: "1.0"
metadata: {name: greeter}
context: {requires: [name, n]}
inputs: {name: {type: string}, n: {type: number}}
outputs: {text: {type: string}, n: {type: number}}
nodes:
  greet:
    inputs: [{name: name, type: string}]
    outputs: [{name: text, type: string}]
    prompt: {role: llm.writer, template: "Greet {{ name }}"}
  halve:
    inputs: [{name: n, type: number}]
    outputs: [{name: n, type: number}]
    transform:
      mode: code
      spec: |
        async def transform(inputs, context, state):
            return {"n": 1 / inputs["n"]}
edges:
  - {from: _input.name, to: greet.name}
  - {from: _input.n, to: halve.n}
  - {from: greet.text, to: _output.text}
  - {from: halve.n, to: _output.n}
"""
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
MODELS = {"llm.writer": "Hello."}
LLMHUB = """
project: tests
env: test
providers: {sim: {}}
roles: {llm.writer: {provider: sim, model: sim-small, mode: chat}}
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(plan(loads(FLOW).flow), tmp_path_factory.mktemp("greeter"), target="kserve")


@pytest.fixture
def module(path: Path) -> Iterator[ModuleType]:
    with imported(path) as module:
        yield module


def made(module: ModuleType, **args: Any) -> Any:
    settings = LocalSettings(store="memory:")
    return module.GreeterAgent(models=ScriptedModels(MODELS), settings=settings, args=AgentArgs.model_validate(args))


async def test_predict_takes_v1_and_v2(module: ModuleType):
    async with made(module) as model:
        headers: dict[str, str] = {}
        answer = await model.predict({"instances": [{"name": "Ada", "n": 2}, {"name": "Bo", "n": 4}]}, {}, headers)
        assert answer == {"predictions": [{"text": "Hello.", "n": 0.5}, {"text": "Hello.", "n": 0.25}]}
        inputs = [InferInput("name", [1], "BYTES", data=["Ada"]), InferInput("n", [1], "FP64", data=[2.0])]
        response = await model.predict(InferRequest(model.name, inputs, request_id="7"))
    assert {output.name: output.as_numpy().tolist() for output in response.outputs} == {"text": ["Hello."], "n": [0.5]}
    assert response.id == "7"


async def test_it_is_healthy_when_it_is_loaded_and_open(module: ModuleType):
    model = made(module)
    assert not await model.healthy()
    assert model.load() is True
    assert not await model.healthy()
    async with model:
        assert await model.healthy()
    assert not await model.healthy()


async def test_a_failed_run_says_how_and_with_which_status(module: ModuleType):
    async with made(module) as model:
        for row, code, status, node in (
            ({"name": "Ada"}, "bad_input", 400, None),
            ({"name": "Ada", "n": 0}, "node_failed", 500, "halve"),
        ):
            with pytest.raises(RunFailed) as caught:
                await model.predict({"instances": [row]}, {"x-trace-id": "mine"})
            error = caught.value
            assert (error.code, error.status, error.node, error.trace_id) == (code, status, node, "mine")
        with pytest.raises(InvalidInput):
            await model.predict({"instance": []}, {})


async def test_a_request_has_a_deadline(module: ModuleType):
    async with made(module) as model:
        with pytest.raises(RunFailed) as caught:
            await model.predict({"instances": [{"name": "Ada", "n": 1}]}, {"x-deadline-seconds": "0.0000001"})
    assert (caught.value.code, caught.value.status) == ("deadline_exceeded", 408)


def test_its_place_is_told_by_the_environment():
    args = args_from(
        {"AGENTFLOW_LLMHUB": "m.yaml", "AGENTFLOW_ALLOW_HOSTS": "a:1, b", "AGENTFLOW_CODE": "off", "X": "y"}
    )
    assert (args.llmhub, args.allow_hosts, args.code) == ("m.yaml", ("a:1", "b"), "off")
    with pytest.raises(AppInvalid, match="AGENTFLOW_CODE: "):
        args_from({"AGENTFLOW_CODE": "maybe"})


@pytest.mark.parametrize(("said", "seconds"), [("null", None), ("60", 60), ("", 90 * 86_400)])
def test_calls_are_kept_for_ever_where_its_environment_says_null(said: str, seconds: float | None):
    assert args_from({"AGENTFLOW_CALLS_TTL_S": said}).calls_ttl_s == seconds
    with pytest.raises(AppInvalid, match="AGENTFLOW_CALLS_TTL_S: "):
        args_from({"AGENTFLOW_CALLS_TTL_S": "never"})


def test_it_does_not_pretend_to_ask_for_keys(module: ModuleType):
    with pytest.raises(AppInvalid, match="asks nobody for a key"):
        module.GreeterAgent(args=args_from({"AGENTFLOW_AUTH": "keys"}))


async def test_the_policy_of_its_arguments_holds_beside_given_settings(module: ModuleType):
    args = AgentArgs.model_validate({"llmhub": yaml.safe_load(LLMHUB), "policy": {"default": "deny"}})
    async with module.GreeterAgent(settings=LocalSettings(store="memory:"), args=args) as model:
        with pytest.raises(RunFailed) as caught:
            await model.predict({"instances": [{"name": "Ada", "n": 1}]}, {})
    assert (caught.value.code, caught.value.status) == ("policy_denied", 403)


async def test_its_store_has_the_ledger_and_forgets_budgets_that_it_is_no_longer_given(
    module: ModuleType, tmp_path: Path
):
    store = f"sqlite:///{tmp_path}/agent.sqlite"
    async with SimServer() as sim:
        llmhub = yaml.safe_load(LLMHUB) | {"providers": {"sim": {"api_base": sim.openai_base}}}
        kept: list[tuple[int, int]] = []
        for budgets in ({"budgets": [{"max_requests_total": 1000}]}, None):
            args = AgentArgs.model_validate({"llmhub": llmhub, "store": store, "budgets": budgets})
            async with module.GreeterAgent(args=args) as model:
                await model.predict({"instances": [{"name": "Ada", "n": 1}]}, {})
            async with open_database(store) as database:
                ledger = Ledger(SqlLedgerWriter(database))
                usage = await ledger.usage("default")
                kept.append((len(await ledger.budgets("default")), usage.requests))
    assert kept == [(1, 1), (0, 2)]


async def test_its_store_is_kept_in_order_while_it_is_served(module: ModuleType, tmp_path: Path):
    store = f"sqlite:///{tmp_path}/agent.sqlite"
    async with open_database(store) as database:
        orphan = ActionRecord(scope_id="s", action_id="a", type="confirm", created_at=LONG_AGO, expires_at=LONG_AGO)
        await SqlActionStore(database).create(orphan, token_hash="h")
        args = AgentArgs.model_validate({"llmhub": yaml.safe_load(LLMHUB), "store": store})
        model = module.GreeterAgent(args=args)
        serving = asyncio.create_task(model.start_engine())
        async with asyncio.timeout(20):
            while not (await ActionManager(SqlActionStore(database), scope_id="s").get("a")).is_settled:
                await asyncio.sleep(0.02)
        model.stop_engine()
        await serving


def test_it_runs_under_model_server(path: Path, tmp_path: Path):
    (tmp_path / "llmhub.yaml").write_text(LLMHUB)
    port = free_port()
    environment = {
        **os.environ,
        "AGENTFLOW_LLMHUB": str(tmp_path / "llmhub.yaml"),
        "AGENTFLOW_STORE": "memory:",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    log = tmp_path / "log"
    with log.open("wb") as out:
        command = [sys.executable, str(path), "--http_port", str(port), "--enable_grpc", "false"]
        server = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=out, stderr=out)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            _wait_until_ready(client, server, log)
            answer = client.post("/v1/models/greeter:predict", json={"instances": [{"name": "Ada", "n": 2}]})
            assert answer.status_code == 200
            [prediction] = answer.json()["predictions"]
            assert "Greet Ada" in prediction["text"] and prediction["n"] == 0.5
            assert answer.headers["x-model-use"].startswith("calls=1")
            body = {
                "inputs": [{"name": "request", "shape": [1], "datatype": "BYTES", "data": ['{"name": "A", "n": 4}']}]
            }
            outputs = client.post("/v2/models/greeter/infer", json=body).json()["outputs"]
            assert {output["name"]: output["data"] for output in outputs}["n"] == [0.25]
            failed = client.post("/v1/models/greeter:predict", json={"instances": [{"name": "Ada", "n": 0}]})
            assert failed.status_code == 500
            assert failed.json().keys() == {"error", "code", "node", "trace_id", "retry_after"}
            assert (failed.json()["code"], failed.json()["node"]) == ("node_failed", "halve")
            assert client.post("/v1/models/greeter:predict", json={"instances": [{}]}).status_code == 400
            assert [each["name"] for each in client.get("/v2/models/greeter").json()["outputs"]] == ["text", "n"]
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0
    finally:
        server.kill()
        server.wait()


def _wait_until_ready(client: httpx.Client, server: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        assert server.poll() is None, log.read_text()
        try:
            if client.get("/v2/models/greeter/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(log.read_text())
