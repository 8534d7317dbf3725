"""The wheel: an installed copy, outside the repository, serves a config with plain `serve run`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from pathlib import Path

import httpx
import psutil
import pytest

from support.ports import free_port
from support.readme import README

pytestmark = pytest.mark.serve

SITE = Path(f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=README.parent, check=True, capture_output=True, timeout=120)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; the libraries come from the one that runs the tests.

    They come through a .pth file, and Python does not look for .pth files in what one names: the editable
    install of the repository stays out.
    """
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False)
    site = home / SITE
    zipfile.ZipFile(wheel).extractall(site)
    (site / "libraries.pth").write_text(str(Path(sys.prefix) / SITE))
    return home / "bin" / "python"


def test_the_wheel_carries_every_package_with_its_types_and_its_command(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    for package in PACKAGES:
        assert f"{package}/py.typed" in names
    for template in ("shared/serve.yaml", "chat/flow.yaml", "branch/flow.yaml", "code/flow.yaml"):
        assert f"agentflow_serve/templates/{template}" in names
    assert not [name for name in names if name.startswith(("tests/", "configs/"))]
    [entry_points] = [name for name in names if name.endswith("entry_points.txt")]
    assert b"agentflow = agentflow_serve.commands:main" in zipfile.ZipFile(wheel).read(entry_points)


def test_the_environment_of_the_wheel_has_no_other_copy(python: Path, tmp_path: Path):
    where = "import agentflow_serve; print(agentflow_serve.__file__)"
    asked = subprocess.run([python, "-c", where], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert Path(asked.stdout.strip()).is_relative_to(python.parent.parent)


def test_serve_run_serves_the_example_from_an_installed_wheel(python: Path, tmp_path: Path):
    shutil.copytree(README.parent / "configs", tmp_path / "configs")
    config = tmp_path / "configs" / "returns_desk.yaml"
    port = free_port()
    config.write_text(config.read_text().replace("port: 8000", f"port: {port}"))
    ray_dir = tempfile.mkdtemp(prefix="af-")
    command = [python, "-c", "from ray.serve.scripts import cli; cli()", "run", "configs/returns_desk.yaml"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, "RAY_TMPDIR": ray_dir}, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            url = f"http://127.0.0.1:{port}/v1/models/returns-desk"
            give_up = time.monotonic() + 180
            while not is_ready(url):
                assert time.monotonic() < give_up and server.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.5)
            request = {"user_id": "u2", "session_id": "s", "query": "My phone is broken"}
            answer = httpx.post(f"{url}:predict", json={"instances": [request]}, timeout=60)
            assert answer.json()["predictions"][0]["status"] == "ticket"
        finally:
            family = psutil.Process(server.pid).children(recursive=True)
            server.send_signal(signal.SIGINT)
            server.wait(timeout=60)
            _, left = psutil.wait_procs(family, timeout=20)
            shutil.rmtree(ray_dir, ignore_errors=True)
    assert [each.pid for each in left] == []


def is_ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).json().get("ready") is True
    except (httpx.HTTPError, ValueError):
        return False
