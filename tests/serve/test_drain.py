"""The end of a worker pod, as its manifest says it: replicas move first, and no request fails.

Three raylets on one machine are slow: AGENTFLOW_DRAIN=full runs it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.command_line import agentflow
from support.manifests import DESK, pods
from support.ports import free_port

pytestmark = [
    pytest.mark.serve,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.environ.get("AGENTFLOW_DRAIN") != "full", reason="three raylets: AGENTFLOW_DRAIN=full"),
]

ECHO: dict[str, Any] = {
    "version": "1.0",
    "metadata": {"name": "echo"},
    "context": {"requires": ["x"]},
    "nodes": {
        "a": {
            "inputs": [{"name": "x", "type": "string"}],
            "outputs": [{"name": "out", "type": "string"}],
            "transform": {"mode": "declarative", "spec": {"op": "io.format_response", "args": {"template": "${x}"}}},
        }
    },
    "edges": [{"from": "_input.x", "to": "a.x"}, {"from": "a.out", "to": "_output"}],
    "deployment": {"kserve": {"min_replicas": 2, "max_replicas": 2}},
}


def test_a_worker_that_ends_hands_its_replicas_over_without_a_failed_request(tmp_path: Path):
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster

    from agentflow_serve import app
    from agentflow_serve.args import parse_args

    assert agentflow("manifests", *DESK, "-o", str(tmp_path / "out")).code == 0
    script = pods(tmp_path / "out")["cpu"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
    folder, port = tempfile.mkdtemp(prefix="af-"), free_port()
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, "temp_dir": folder}
    )
    try:
        workers = [cluster.add_node(num_cpus=1) for _ in range(2)]
        ray.init(address=cluster.address, namespace="serve", log_to_driver=False)
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        serve.run(app(parse_args({"flow": ECHO, "placement": "inline", "store": "memory:"})), name="echo")
        url = f"http://127.0.0.1:{port}/v1/models/echo:predict"
        seen: Counter[str] = Counter()
        stop = threading.Event()

        def ask() -> None:
            with httpx.Client(timeout=60, trust_env=False) as client:
                while not stop.wait(0.05):
                    try:
                        seen[str(client.post(url, json={"instances": [{"x": "y"}]}).status_code)] += 1
                    except httpx.HTTPError as exc:
                        seen[type(exc).__name__] += 1

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            leaving = next(worker for worker in workers if replicas_on(worker.node_id))
            drain = shlex.split(script.split(";")[0])[1:]
            command = [sys.executable, "-c", "from ray.scripts.scripts import cli; cli()", *drain]
            subprocess.run(
                [*command, "--address", cluster.address, "--node-id", leaving.node_id], check=True, timeout=120
            )
            give_up = time.monotonic() + 300
            while replicas_on(leaving.node_id):
                assert time.monotonic() < give_up
                time.sleep(0.5)
            cluster.remove_node(leaving, allow_graceful=False)
            time_of_grace = seen.total() + 20
            while seen.total() < time_of_grace:
                assert time.monotonic() < give_up
                time.sleep(0.1)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert set(seen) == {"200"}, seen
    finally:
        serve.shutdown()
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def replicas_on(node_id: str) -> list[str]:
    """The replicas that Serve counts on a machine."""
    from ray.serve.context import _get_global_client

    found = _get_global_client().get_serve_details()["applications"]["echo"]["deployments"]
    return [
        each["replica_id"]
        for deployment in found.values()
        for each in deployment["replicas"]
        if each.get("node_id") == node_id
    ]
