"""The wheel: an installed copy, outside the repository, serves with plain `serve run` what stands in files and what
`agentflow serve --write-config` wrote."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from agentflow_serve.commands.exits import Exit
from support.command_line import agentflow
from support.ports import free_port
from support.readme import README, blocks

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
    wanted = tomllib.loads((README.parent / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for package in wanted["packages"]:
        assert f"{Path(package).name}/py.typed" in names
    for template in ("shared/serve.yaml", "chat/flow.yaml", "branch/flow.yaml", "code/flow.yaml"):
        assert f"agentflow_serve/templates/{template}" in names
    assert not [name for name in names if name.startswith(("tests/", "configs/"))]
    [entry_points] = [name for name in names if name.endswith("entry_points.txt")]
    assert b"agentflow = agentflow_serve.commands:main" in zipfile.ZipFile(wheel).read(entry_points)


def test_the_environment_of_the_wheel_has_no_other_copy(python: Path, tmp_path: Path):
    where = "import agentflow_serve; print(agentflow_serve.__file__)"
    asked = subprocess.run([python, "-c", where], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert Path(asked.stdout.strip()).is_relative_to(python.parent.parent)


def both_apps(folder: Path, port: int) -> dict[str, Any]:
    """A config with two apps: one reads its files below `folder`, the other was written whole and needs none."""
    shutil.copytree(README.parent / "configs", folder / "configs")
    flow, written = folder / "hello.yaml", folder / "written.yaml"
    flow.write_text(blocks("yaml")[0])
    llmhub = folder / "configs" / "llmhub.sim.yaml"
    options = ("--llmhub", str(llmhub), "--port", str(port), "--placement", "per_node", "--write-config", str(written))
    assert agentflow("serve", str(flow), *options).code == Exit.OK
    flow.unlink()
    config = yaml.safe_load(written.read_text())
    [hello] = config["applications"]
    [triage] = yaml.safe_load((folder / "configs" / "triage.yaml").read_text())["applications"]
    triage["args"]["placement"] = "inline"  # a process for each of its nodes is a matter of test_examples.py
    return {**config, "applications": [{**triage, "route_prefix": "/triage"}, hello]}


def test_serve_run_serves_an_example_and_a_written_config_from_an_installed_wheel(python: Path, tmp_path: Path):
    port = free_port()
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(both_apps(tmp_path, port)))
    ray_dir = tempfile.mkdtemp(prefix="af-")
    command = [python, "-c", "from ray.serve.scripts import cli; cli()", "run", "serve.yaml"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, "RAY_TMPDIR": ray_dir}, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            hello = f"http://127.0.0.1:{port}/v1/models/hello"
            triage = f"http://127.0.0.1:{port}/triage/v1/models/triage"
            give_up = time.monotonic() + 180
            while not (is_ready(hello) and is_ready(triage)):
                assert time.monotonic() < give_up and server.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.5)
            assert "Greet" in answer(hello, {"name": "Ada"})
            assert answer(triage, {"ticket": "x", "account": "a-2"})["reply"].startswith("Thank you, Ben.")
        finally:
            family = psutil.Process(server.pid).children(recursive=True)
            server.send_signal(signal.SIGINT)
            server.wait(timeout=60)
            _, left = psutil.wait_procs(family, timeout=20)
            shutil.rmtree(ray_dir, ignore_errors=True)
    assert [each.pid for each in left] == []


def answer(url: str, request: dict[str, str]) -> Any:
    response = httpx.post(f"{url}:predict", json={"instances": [request]}, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()["predictions"][0]


def is_ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).json().get("ready") is True
    except (httpx.HTTPError, ValueError):
        return False
