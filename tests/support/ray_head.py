"""A Ray head with its dashboard and a token, as a process of its own: what KubeRay starts in a pod."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from support.ports import free_port

TOKEN = "a-token-of-the-tests-that-is-long-enough"
_PROGRAM = """
import sys
import ray

ray.init(
    address="local", num_cpus=4, include_dashboard=True, dashboard_host="127.0.0.1", dashboard_port=int(sys.argv[1]),
    object_store_memory=150_000_000, _temp_dir=sys.argv[2], log_to_driver=False, namespace="serve",
)
print("ready", flush=True)
sys.stdin.read()
from ray import serve
serve.shutdown()
ray.shutdown()
"""


@dataclass(frozen=True, slots=True)
class RayHead:
    address: str
    token: str = field(default=TOKEN, repr=False)


@contextmanager
def ray_head() -> Iterator[RayHead]:
    """A cluster that is gone, with every process of it, when the block ends."""
    folder, port = tempfile.mkdtemp(prefix="af-"), free_port()
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
        "HOME": folder,
    }
    with (Path(folder) / "log").open("w") as log:
        head = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(port), folder],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
        try:
            assert head.stdout is not None and head.stdin is not None
            said = head.stdout.readline()
            assert said == "ready\n", (Path(folder) / "log").read_text()
            yield RayHead(f"http://127.0.0.1:{port}")
        finally:
            family = psutil.Process(head.pid).children(recursive=True) if head.poll() is None else []
            for stream in (head.stdin, head.stdout):
                if stream is not None:
                    stream.close()
            try:
                head.wait(timeout=60)
            finally:
                head.kill()
                head.wait()
                _, left = psutil.wait_procs(family, timeout=20)
                for process in left:
                    process.kill()
                shutil.rmtree(folder, ignore_errors=True)
