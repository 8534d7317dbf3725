"""What the README says a reader will see is what a reader sees; curl lines are tested with a server in tests/serve."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.readme import README, blocks, examples, tidy


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's directory: the repository's configs, and nothing else."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(README.parent / "configs", folder / "configs")
    return folder


def shell(command: str, cwd: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, shell=True, cwd=cwd, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in done.stderr, done.stderr
    return tidy(done.stdout)


def hello() -> tuple[str, str]:
    """The README's flow, and the same with the README's second node."""
    first, node, edges = blocks("yaml")[:3]
    second = first.replace("edges:\n", f"{node}edges:\n").replace("  - {from: greet.text, to: _output}\n", edges)
    return first, second


def test_every_command_prints_what_the_readme_shows(desk: Path):
    first, second = hello()
    (desk / "broken.yaml").write_text(first.replace("template:", "tempalte:"))
    (desk / "hello.yaml").write_text(first)
    ran = [each for each in examples() if each.command.startswith(("agentflow ", "cd "))]
    assert len(ran) == 18
    seen: set[str] = set()
    for example in ran:
        if example.command in seen:  # the same again, after the reader has added the node
            (desk / "hello.yaml").write_text(second)
        seen.add(example.command)
        assert shell(example.command, desk) == example.output, example.command


def test_the_python_program_runs(desk: Path):
    (desk / "hello.yaml").write_text(hello()[0])
    [program] = blocks("python")
    (desk / "program.py").write_text(program)
    assert "Ada" in shell("python program.py", desk)


def test_make_serve_and_the_readme_mean_the_same_config():
    done = subprocess.run(["make", "-n", "serve"], cwd=README.parent, capture_output=True, text=True, check=True)
    assert "agentflow serve --config configs/returns_desk.yaml" in done.stdout


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text()):
        assert (README.parent / target).exists(), target
