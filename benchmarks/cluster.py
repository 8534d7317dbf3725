"""A Ray cluster for one benchmark: own folder, loopback, no dashboard, and what CPU time its processes use."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import psutil

from benchmarks.harness import median_ratio, paired
from benchmarks.load import HOST, Target, send
from support.ports import free_port

IDLE_S = 3.0


@dataclass(frozen=True, slots=True)
class Load:
    """What a number of requests took, in seconds for each one."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Cluster:
    """Ray and Serve, with Serve's proxy on `port`."""

    port: int

    def deploy(self, **apps: Any) -> None:
        """Run applications, each under `/<name>`, and wait until all of them answer."""
        from ray import serve

        serve.run_many([serve.RunTarget(app, name=name, route_prefix=f"/{name}") for name, app in apps.items()])

    def delete(self, app: str) -> None:
        from ray import serve

        serve.delete(app)

    def ask(self, app: str, method: str, *args: Any) -> Any:
        """Call a method of an application's ingress deployment."""
        from ray import serve

        return getattr(serve.get_app_handle(app), method).remote(*args).result(timeout_s=60)

    def target(self, app: str, path: str, body: bytes) -> Target:
        return Target(self.port, f"/{app}{path}", body)

    def idle_cpu(self) -> float:
        """Seconds of CPU per second that the cluster uses while nobody asks anything."""
        before = cpu_s()
        time.sleep(IDLE_S)
        return (cpu_s() - before) / IDLE_S

    def load(self, target: Target, *, requests: int, connections: int, idle_cpu: float = 0.0) -> Load:
        """Send the requests. `idle_cpu` is taken off, because it belongs to none of them."""
        before = cpu_s()
        took = send(target, requests=requests, connections=connections)
        return Load(took / requests, (cpu_s() - before - idle_cpu * took) / requests)


@dataclass(frozen=True, slots=True)
class Compared:
    """Ours over the baseline: requests per second and CPU time for each request; and what the baseline did."""

    rate: float
    cpu: float
    baseline_rate: float


def compare(ray: Cluster, ours: Target, baseline: Target, *, requests: int, connections: int, pairs: int) -> Compared:
    """Load both in turn, after each has had some requests to warm up."""
    for target in (ours, baseline):
        ray.load(target, requests=requests // 2, connections=connections)
    idle = ray.idle_cpu()

    def run(target: Target) -> Callable[[], Load]:
        return lambda: ray.load(target, requests=requests, connections=connections, idle_cpu=idle)

    results = paired(run(ours), run(baseline), pairs=pairs)
    return Compared(
        rate=median_ratio((base.wall_s, our.wall_s) for our, base in results),
        cpu=median_ratio((our.cpu_s, base.cpu_s) for our, base in results),
        baseline_rate=median(1 / base.wall_s for _, base in results),
    )


@contextmanager
def cluster(*, haproxy: bool = False) -> Iterator[Cluster]:
    """A cluster that is gone when the block ends. `haproxy` can only be chosen before Ray Serve is imported."""
    folder = tempfile.mkdtemp(prefix="af-")
    os.environ.update(_haproxy_environment(folder) if haproxy else {})
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S="60")
    import ray
    from ray import serve

    port = free_port()
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=150_000_000,
        namespace="serve",
        log_to_driver=False,
        logging_level=logging.ERROR,
        _node_ip_address=HOST,
        _temp_dir=folder,
    )
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": HOST, "port": port})
        yield Cluster(port)
    finally:
        serve.shutdown()
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def cpu_s() -> float:
    """CPU time so far of all processes of the cluster: they are this one's descendants."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def _haproxy_environment(folder: str) -> Mapping[str, str]:
    """HAProxy with its files in the cluster's folder. Its metrics and statistics ports are on all interfaces."""
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/haproxy.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
    }
