"""`agentflow serve` as a stranger runs it: a URL, a curl line that works, the README's answers, and a clean end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.command_line import agentflow
from support.ports import free_port
from support.readme import README, blocks, examples, tidy

from .conftest import REQUESTS, Served

pytestmark = pytest.mark.serve

AGENTFLOW = [str(Path(sys.executable).parent / "agentflow")]


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    shutil.copytree(README.parent / "configs", tmp_path / "configs")
    return tmp_path


def environment(folder: Path) -> dict[str, str]:
    """Ray's files go to a short path of our own: sockets have short names."""
    left_out = ("_API_KEY", "PROXY_READY_CHECK_TIMEOUT_S")  # the command sets the latter itself
    own = {name: value for name, value in os.environ.items() if not name.endswith(left_out)}
    return {**own, "RAY_TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0"}


@contextmanager
def serving(command: list[str], cwd: Path) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A server that has said that it is ready, and what it printed; ended by Ctrl-C, with nothing left of it."""
    ray_dir = Path(tempfile.mkdtemp(prefix="af-"))
    server = subprocess.Popen(
        command,
        cwd=cwd,
        env=environment(ray_dir),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert server.stdout is not None
        lines: list[str] = []
        for line in server.stdout:
            lines.append(line.rstrip())
            if "Press Ctrl-C" in line:
                break
        else:
            pytest.fail(f"it ended before it was ready: {server.stderr.read() if server.stderr else ''}")
        yield server, lines
        family = psutil.Process(server.pid).children(recursive=True)
        os.killpg(server.pid, signal.SIGINT)  # as a terminal does
        assert server.wait(timeout=60) == 0 or command[0] == "make"
        _, left = psutil.wait_procs(family, timeout=20)
        assert [each.cmdline() for each in left if each.status() != psutil.STATUS_ZOMBIE] == []
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(timeout=60)
        for stream in (server.stdout, server.stderr):
            if stream is not None:
                stream.close()
        shutil.rmtree(ray_dir, ignore_errors=True)


def on_port(path: Path, port: int) -> None:
    path.write_text(path.read_text().replace("port: 8000", f"port: {port}"))


def curl(command: str, port: int) -> str:
    done = subprocess.run(
        command.replace(":8000/", f":{port}/"), shell=True, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return tidy(done.stdout)


def test_the_example_is_served_with_the_answers_of_the_readme_and_of_one_process(
    desk: Path, local_answers: dict[str, list[Any]]
):
    port = free_port()
    on_port(desk / "configs" / "returns_desk.yaml", port)
    config = desk / "configs" / "returns_desk.yaml"
    with serving(["make", "--no-print-directory", "serve", f"CONFIG={config}"], README.parent) as (_, printed):
        assert any(f"http://127.0.0.1:{port}/v1/models/returns-desk" in line for line in printed)
        lines = [each for each in examples() if each.command.startswith("curl ")]
        assert len(lines) >= 5
        for example in lines:
            assert curl(example.command, port) == example.output, example.command
        [line] = [line for line in printed if line.startswith("curl ")]
        assert '"predictions"' in curl(line, port)
        served = Served(app="returns-desk", model="returns-desk", base=f"http://127.0.0.1:{port}")
        answers = [served.predict(request).json() for request in REQUESTS["returns-desk"]]
        assert answers == [{"predictions": [answer]} for answer in local_answers["returns-desk"]]


def test_a_flow_is_served_without_any_config_and_again_when_it_changes(desk: Path):
    flow = desk / "hello.yaml"
    flow.write_text(blocks("yaml")[0])
    port = free_port()
    options = ["--llmhub", "configs/llmhub.sim.yaml", "--port", str(port), "--placement", "inline"]
    with serving([*AGENTFLOW, "serve", "hello.yaml", *options, "--reload"], desk) as (server, printed):
        family = psutil.Process(server.pid).children(recursive=True)
        [raylet] = [each for each in family if each.name() == "raylet"]
        assert raylet.environ()["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"] == "60", "for a busy machine"
        [line] = [line for line in printed if line.startswith("curl ")]
        assert "Greet" in curl(line, port)
        flow.write_text(flow.read_text().replace("Greet", "Praise"))
        give_up = time.monotonic() + 120
        while "Praise" not in (said := curl(line, port)):
            assert "Greet" in said and time.monotonic() < give_up
            time.sleep(0.5)


def test_a_port_in_use_is_said_before_anything_starts(desk: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        on_port(desk / "configs" / "triage.yaml", port)
        command = [*AGENTFLOW, "serve", "--config", "configs/triage.yaml"]
        done = subprocess.run(command, cwd=desk, env=environment(desk), capture_output=True, text=True, timeout=120)
    assert done.returncode == 4
    assert f"port {port} on 127.0.0.1 is in use" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(desk.glob("ray*")), "Ray was started for nothing"


@pytest.fixture
def here(desk: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, with the command in this process: nothing of what it refuses here gets as far as Ray."""
    monkeypatch.chdir(desk)
    for name in os.environ.keys() - environment(desk).keys():
        monkeypatch.delenv(name)
    return desk


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ((r"flow: .*", "flow: nowhere.yaml"), 4, "there is no file nowhere.yaml"),
        ((r"llmhub: .*", "llmhub: nowhere.yaml"), 4, "there is no file nowhere.yaml"),
        ((r"llmhub: .*", "llmhubb: x"), 4, "args.llmhubb"),
        ((r"llmhub: .*", "llmhub: configs/llmhub.real.yaml"), 4, "OPENAI_API_KEY (provider openai)"),
        ((r"llmhub: (.*)", r"llmhub: \1\n      code: off"), 4, "has code, and this server runs none"),
        ((r"(?s)applications:.*", "applications: [1]"), 4, "is not a serve config"),
        ((r"http_options: .*", "http_options: 5"), 4, "is not a serve config"),
        ((r"      llmhub: .*", ""), 4, "has a prompt"),
        ((r"llmhub: .*", "llmhub: {project: p, env: e, providers: {sim: {}}, roles: {}}"), 4, "no role 'llm.backup'"),
    ],
)
def test_a_config_that_cannot_work_ends_with_one_sentence(here: Path, change: tuple[str, str], code: int, message: str):
    path = here / "configs" / "triage.yaml"
    path.write_text(re.sub(*change, path.read_text()))
    ended = agentflow("serve", "--config", "configs/triage.yaml")
    assert ended.code == code
    assert message in ended.err


def test_an_invalid_flow_ends_with_its_findings(here: Path):
    path = here / "configs" / "flows" / "triage.yaml"
    path.write_text(path.read_text().replace("role: llm.search", "rolle: llm.search"))
    ended = agentflow("serve", "--config", "configs/triage.yaml")
    assert ended.code == 3
    assert "triage.yaml:" in ended.err
    assert "rolle" in ended.err
