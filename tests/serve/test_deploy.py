"""`agentflow deploy` onto a cluster with token authentication, the way that KubeRay goes: one cluster, one story."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from agentflow_serve.commands.exits import Exit
from support.command_line import agentflow
from support.ports import free_port
from support.ray_head import ray_head

pytestmark = [pytest.mark.serve, pytest.mark.timeout(600)]

TEXT = [{"name": "text", "type": "string"}]
FLOW: dict[str, Any] = {
    "version": "1.0",
    "metadata": {"name": "greeter"},
    "context": {"requires": ["text"]},
    "nodes": {
        name: {
            "inputs": TEXT,
            "outputs": [{"name": "out", "type": "string"}],
            "transform": {
                "mode": "declarative",
                "spec": {"op": "io.format_response", "args": {"template": f"{name} ${{text}}"}},
            },
        }
        for name in ("hello", "again")
    },
    "edges": [
        {"from": "_input.text", "to": "hello.text"},
        {"from": "hello.out", "to": "again.text"},
        {"from": "again.out", "to": "_output"},
    ],
}


class Traffic:
    """What came of requests that never stopped."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def failed(self) -> dict[str, int]:
        return {what: number for what, number in self.seen.items() if what != "200 again hello you"}


@contextmanager
def traffic(url: str) -> Iterator[Traffic]:
    counts, stop = Traffic(), threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=30, trust_env=False) as client:
            while not stop.wait(0.02):
                try:
                    response = client.post(url, json={"instances": [{"text": "you"}]})
                    answer = response.json().get("predictions", [""])[0]
                    counts.seen[f"{response.status_code} {answer}"] += 1
                except httpx.HTTPError as exc:
                    counts.seen[type(exc).__name__] += 1

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_flow_is_deployed_with_the_token_changed_in_place_under_load_and_is_the_graph_of_the_ir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "flow.yaml").write_text(json.dumps(FLOW))
    config, port = tmp_path / "serve.yaml", free_port()
    options = ("--port", str(port), "--write-config", str(config))
    assert agentflow("serve", str(tmp_path / "flow.yaml"), *options).code == Exit.OK
    exported = yaml.safe_load(config.read_text())
    exported["applications"][0]["args"]["store"] = "memory:"
    config.write_text(yaml.safe_dump(exported))
    base = f"http://127.0.0.1:{port}"
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))

    with ray_head() as head:
        to = ("--config", str(config), "--address", head.address)
        refused = agentflow("deploy", *to)
        assert refused.code == Exit.ENVIRONMENT and "wants a token (401)" in refused.err

        (tmp_path / "token").write_text(f"{head.token}\n")
        dry = agentflow("deploy", *to, "--token-file", str(tmp_path / "token"), "--dry-run")
        assert (dry.code, dry.out) == (Exit.OK, "add 'greeter'\n"), dry.err
        monkeypatch.setenv("RAY_AUTH_TOKEN", head.token)
        done = agentflow("deploy", *to)
        assert done.code == Exit.OK, done.err
        assert done.out.endswith(f"'greeter' runs on {head.address} as the flow says\n")
        assert head.token not in done.out + done.err

        predict = f"{base}/v1/models/greeter:predict"
        v1 = httpx.post(predict, json={"instances": [{"text": "you"}]}, timeout=30)
        assert v1.json() == {"predictions": ["again hello you"]}
        tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["you"]}
        v2 = httpx.post(f"{base}/v2/models/greeter/infer", json={"inputs": [tensor]}, timeout=30)
        assert json.loads(v2.json()["outputs"][0]["data"][0]) == "again hello you"

        with traffic(predict) as counts:
            exported["applications"][0]["args"]["limits"] = {"max_batch": 2}
            config.write_text(yaml.safe_dump(exported))
            changed = agentflow("deploy", *to)
            assert changed.code == Exit.OK and changed.out.startswith("change 'greeter'"), changed.err
            three = httpx.post(predict, json={"instances": [{"text": "you"}] * 3}, timeout=30)
            assert three.status_code == 400 and "2" in three.text, three.text
        assert counts.failed() == {} and counts.seen.total() > 50

        exported["applications"][0]["name"] = "another"
        config.write_text(yaml.safe_dump(exported))
        taken = agentflow("deploy", *to)
        assert taken.code == Exit.ENVIRONMENT and "also serves 'greeter'" in taken.err
        assert httpx.get(f"{base}/v2/models/greeter/ready", timeout=30).status_code == 200
