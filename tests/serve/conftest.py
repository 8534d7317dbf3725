"""One small Ray cluster for the folder, with the example flows deployed in both placements.

Own temp dir, own ports, loopback only; what was started here is shut down here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from agentflow import load
from flow_runtime import LocalFlow, LocalSettings
from flow_runtime.hub_models import local_models
from llmhub_runtime import LLMHub
from llmhub_runtime.sim import SimProcess
from support.ports import free_port

CONFIGS = Path(__file__).parent.parent.parent / "configs"
FLOWS = {"returns-desk": "returns_desk", "research-brief": "research_brief", "triage": "triage"}
FEATURES = LocalSettings(feature_store=f"local:{CONFIGS / 'features'}", embedder="llm.embed")
PLACEMENTS = ("per_node", "inline")
ELSEWHERE = {("returns-desk", "per_node")}
"""What `make serve` serves, and test_command.py asks it."""
if os.environ.get("AGENTFLOW_TABLE") != "full":
    ELSEWHERE.add(("research-brief", "per_node"))  # seven nodes, six of them alike, and two seconds of CPU for each
HERE = tuple(pair for pair in product(FLOWS, PLACEMENTS) if pair not in ELSEWHERE)
"""What `examples` deploys."""
OWN_MODEL = {"returns-desk"}
"""It names another provider, for which only a simulated model of the app's own answers; the others share one."""
CALM = {
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.4",
    "REPORTER_UPDATE_INTERVAL_MS": "60000",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
}
"""Serve goes through its replicas ten times a second, Ray's agent through all processes every five seconds, and a proxy
that is not ready after five is killed."""

REQUESTS: dict[str, list[dict[str, Any]]] = {
    "returns-desk": [
        {"user_id": "u1", "session_id": "matrix-1", "query": "Can I return worn shoes?"},
        {"user_id": "u1", "session_id": "matrix-1", "query": "And after 40 days?"},
        {"user_id": "u2", "session_id": "matrix-2", "query": "My phone is broken"},
        {"user_id": "u3", "session_id": "matrix-3", "query": "Quotes ' \" and \\ and {{ braces }}"},
    ],
    "research-brief": [{"topic": "Heat pumps in old houses"}, {"topic": "Überraschung 🎉"}],
    "triage": [
        {"ticket": "My invoice is wrong", "account": "a-1"},
        {"ticket": "My invoice is wrong", "account": "a-2"},
        {"ticket": "My invoice is wrong", "account": "unknown"},
    ],
}


@dataclass(frozen=True, slots=True)
class Served:
    """A deployed flow: `app` is the Serve application, `model` the name in KServe's routes.

    `headers` go with every request.
    """

    app: str
    model: str
    base: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def predict(self, request: Mapping[str, Any], **options: Any) -> httpx.Response:
        return self.post(f"/v1/models/{self.model}:predict", {"instances": [dict(request)]}, **options)

    def post(self, path: str, body: Any, *, headers: Mapping[str, str] | None = None) -> httpx.Response:
        return httpx.post(self.base + path, json=body, timeout=60, headers={**self.headers, **(headers or {})})

    def wait_until_ready(self) -> Served:
        """As a probe does: Serve calls an app running before the predictor has looked at its graph."""
        give_up = time.monotonic() + 60
        while self.get(f"/v2/models/{self.model}/ready").status_code != 200:
            assert time.monotonic() < give_up, f"{self.app} never got ready"
            time.sleep(0.2)
        return self

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.base + path, timeout=60, headers=dict(self.headers))

    def delete(self, path: str) -> httpx.Response:
        return httpx.delete(self.base + path, timeout=60, headers=dict(self.headers))

    def handle(self, deployment: str) -> Any:
        from ray import serve

        return serve.get_deployment_handle(f"{self.model}.{deployment}", self.app)

    def sim_log(self) -> list[dict[str, Any]]:
        """Every request that the app's simulated model has seen."""
        base = self.handle("sim").address.remote().result(timeout_s=30).removesuffix("/v1")
        return httpx.get(f"{base}/sim/log", timeout=30).json()


Deploy = Callable[..., Served]


@pytest.fixture(scope="session", autouse=True)
def calm() -> Iterator[None]:
    """Every cluster of the folder looks after itself less often: it is most of what an idle one costs."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in CALM.items():
            environment.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def cluster() -> Iterator[int]:
    """Ray, and Serve's proxy on the port that this gives."""
    import ray
    from ray import serve

    folder = tempfile.mkdtemp(prefix="af-")
    port = free_port()
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=150_000_000,
        namespace="serve",
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=folder,
    )
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        yield port
    finally:
        serve.shutdown()
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def hub() -> Iterator[dict[str, Any]]:
    """configs/llmhub.sim.yaml with one simulated model for all apps; without an address each starts its own."""
    document = yaml.safe_load((CONFIGS / "llmhub.sim.yaml").read_text())
    with SimProcess() as sim:
        yield {**document, "providers": {"sim": {"api_base": sim.openai_base}}}


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The run store of every app: one file, as on one machine."""
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'agentflow.sqlite'}"


@pytest.fixture(scope="session")
def local_answers() -> dict[str, list[Any]]:
    return asyncio.run(answer_locally())


async def answer_locally() -> dict[str, list[Any]]:
    answers: dict[str, list[Any]] = {}
    async with LLMHub(config_path=str(CONFIGS / "llmhub.sim.yaml")) as hub:
        for name, file in FLOWS.items():
            flow = load(CONFIGS / "flows" / f"{file}.yaml").flow
            async with (
                local_models(flow, hub, embedder=FEATURES.embedder) as models,
                LocalFlow(flow, models=models, settings=FEATURES) as runner,
            ):
                reports = [await runner.run(request) for request in REQUESTS[name]]
            assert [report.error for report in reports] == [None] * len(reports)
            answers[name] = [report.output for report in reports]
    return answers


@pytest.fixture(scope="module")
def deploy(cluster: int, store: str) -> Iterator[Deploy]:
    """Deploys one flow, given the builder's arguments, as an app of its own and waits until it runs."""
    from ray import serve

    from agentflow_serve import app
    from agentflow_serve.args import parse_args
    from agentflow_serve.inputs import read_inputs

    started: set[str] = set()

    def start(name: str, **args: Any) -> Served:
        parsed = parse_args({"store": store, **args})
        started.add(name)
        serve.run(app(parsed), name=name, route_prefix=f"/{name}")
        base = f"http://127.0.0.1:{cluster}/{name}"
        return Served(app=name, model=read_inputs(parsed).plan.name, base=base).wait_until_ready()

    yield start
    delete(started)


def delete(apps: Iterable[str]) -> None:
    """Apps that stay take the time of the files that come after, with a probe for every replica each second."""
    from ray import serve

    for name in apps:
        serve.delete(name, _blocking=False)


@pytest.fixture(scope="module")
def examples(cluster: int, store: str, hub: dict[str, Any]) -> Iterator[dict[tuple[str, str], Served]]:
    """The flows of configs/ by (flow, placement), deployed together because start-up is what costs."""
    from ray import serve

    from agentflow_serve import app
    from agentflow_serve.args import AppArgs

    served: dict[tuple[str, str], Served] = {}
    targets: list[serve.RunTarget] = []
    for flow, placement in HERE:
        name = f"{flow}-{placement.replace('_', '-')}"
        args = AppArgs(
            flow=str(CONFIGS / "flows" / f"{FLOWS[flow]}.yaml"),
            llmhub=str(CONFIGS / "llmhub.sim.yaml") if flow in OWN_MODEL else hub,
            feature_store=FEATURES.feature_store,
            embedder=FEATURES.embedder,
            placement=placement,
            store=store,
        )
        targets.append(serve.RunTarget(target=app(args), name=name, route_prefix=f"/{name}"))
        served[flow, placement] = Served(app=name, model=flow, base=f"http://127.0.0.1:{cluster}/{name}")
    serve.run_many(targets)
    yield {key: each.wait_until_ready() for key, each in served.items()}
    delete(each.app for each in served.values())
