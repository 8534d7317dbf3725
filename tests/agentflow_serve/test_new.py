"""`agentflow new`: what it writes works at once, and it never touches what is there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agentflow_serve.commands.exits import Exit
from agentflow_serve.commands.new import TEMPLATES
from agentflow_serve.scaffold import NAME, project, suggested_name
from agentflow_serve.serve_config import check_config, read_config
from support.command_line import agentflow

PACKAGED = Path(__file__).parents[2] / "deployments" / "agentflow_serve" / "templates"


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def keyless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without keys and without a way out: a proxy that nobody serves catches every call but loopback's."""
    for name in [name for name in os.environ if name.endswith("_API_KEY")]:
        monkeypatch.delenv(name)
    nowhere = "http://127.0.0.1:9"
    for name, value in {"http_proxy": nowhere, "https_proxy": nowhere, "no_proxy": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)


def shell(script: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-ec", script], env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def here(script: str) -> str:
    """As `shell`, for lines that begin with cd or agentflow, in this process: starting Python is what costs."""
    said: list[str] = []
    with contextlib.chdir("."):
        for line in script.splitlines():
            command, *arguments = shlex.split(line)
            if command == "cd":
                os.chdir(*arguments)
                continue
            assert command == "agentflow"
            ended = agentflow(*arguments)
            assert ended.code == Exit.OK, ended.err
            said.append(ended.out)
    return "".join(said)


def indented(text: str) -> list[str]:
    return re.findall(r"^ {2,4}(\S.*)$", text, re.MULTILINE)


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_printed_commands_and_those_of_its_readme_work_as_they_stand(template: str, keyless: None):
    execute = shell if template == next(iter(TEMPLATES)) else here
    ended = agentflow("new", "first-try", "--template", template)
    assert (ended.code, ended.err) == (Exit.OK, "")
    commands = indented(ended.out)
    assert [line.split()[:2] for line in commands[1:]] == [["agentflow", "test"], ["agentflow", "run"]]
    printed = execute("\n".join(commands))
    assert re.search(r"^\d tests, 0 failed$", printed, re.MULTILINE)
    assert "[sim:sim-" in printed

    readme = Path("first-try/README.md").read_text()
    others = [line for line in indented(readme) if line.startswith("agentflow") and line not in commands]
    assert [line.split()[1] for line in others] == ["validate", "plan", "doctor", "serve"]
    assert "flow.yaml: valid\n" in here("\n".join(["cd first-try", *others[:2]]))


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_serve_config_is_one_that_ray_and_we_accept(template: str, monkeypatch: pytest.MonkeyPatch):
    agentflow("new", "first-try", "--template", template)
    monkeypatch.chdir("first-try")
    [app] = check_config(read_config(Path("serve.yaml")), {})
    assert (app.name, app.model) == ("first-try", "first-try")
    [curl] = [line for line in indented(Path("README.md").read_text()) if line.startswith("curl ")]
    assert json.dumps({"instances": [app.sample]}) in curl


@pytest.mark.parametrize("template", TEMPLATES)
def test_an_editor_finds_the_schema_by_the_first_line(template: str):
    agentflow("new", "first-try", "--template", template)
    first = Path("first-try/flow.yaml").read_text().partition("\n")[0]
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert named
    assert Path("first-try", named[1]).read_text() == agentflow("schema").out


def test_every_template_is_packaged_and_offered():
    assert {path.name for path in PACKAGED.iterdir()} == {*TEMPLATES, "shared"}


@pytest.mark.parametrize("name", ["null", "true", "on", "e1", "a", "a" * 63, "chat", "text"])
def test_a_name_stays_text_wherever_it_is_put(name: str):
    files = project("chat", name).files
    assert yaml.safe_load(files["flow.yaml"])["metadata"]["name"] == name
    assert yaml.safe_load(files["serve.yaml"])["applications"][0]["name"] == name
    assert yaml.safe_load(files["llmhub.yaml"])["project"] == name
    assert not any(token in text for text in files.values() for token in ("flow-name", "SAMPLE-"))


@pytest.mark.parametrize(
    "name", ["My Flow", "../up", "/abs", "a/b", "1st", "-x", "x-", "", "a" * 64, "é", "a\n", "a.b"]
)
def test_a_name_that_is_none_is_refused(desk: Path, name: str):
    ended = agentflow("new", "--", name)
    assert (ended.code, ended.out) == (Exit.USAGE, "")
    assert "lower-case letters, digits and hyphens" in ended.err
    assert list(desk.iterdir()) == []


def test_a_refused_name_comes_with_one_that_would_do():
    assert "try 'my-flow'" in agentflow("new", "My Flow").err


@given(st.text(max_size=80))
def test_what_is_suggested_is_a_name(text: str):
    instead = suggested_name(text)
    assert instead is None or NAME.fullmatch(instead)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("target", ["taken", "a_file", "no/where", ".", "locked/x"])
def test_a_folder_that_cannot_be_made_is_a_sentence_and_nothing_changes(desk: Path, target: str):
    (desk / "taken").mkdir()
    (desk / "taken" / "mine").write_text("precious")
    (desk / "a_file").write_text("precious")
    (desk / "locked").write_text("no folder")
    before = contents(desk)
    ended = agentflow("new", "first-try", "--dir", target)
    assert (ended.code == Exit.ENVIRONMENT) or (ended.code == Exit.USAGE and "is a file" in ended.err)
    assert ended.out == "" and "Traceback" not in ended.err
    assert contents(desk) == before
    assert {path.name for path in desk.iterdir()} == {"taken", "a_file", "locked"}


def test_a_failure_half_way_leaves_nothing(desk: Path, monkeypatch: pytest.MonkeyPatch):
    written: list[Path] = []
    write = Path.write_text

    def full(path: Path, text: str, **options: str) -> int:
        written.append(path)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        return write(path, text, **options)

    monkeypatch.setattr(Path, "write_text", full)
    ended = agentflow("new", "first-try")
    assert (ended.code, ended.err.endswith("No space left on device\n")) == (Exit.ENVIRONMENT, True)
    assert list(desk.iterdir()) == []


def test_an_empty_folder_is_taken_and_the_printed_path_is_quoted(desk: Path):
    (desk / "my work").mkdir()
    ended = agentflow("new", "first-try", "--dir", "my work")
    assert ended.code == Exit.OK
    assert "  cd 'my work'\n" in ended.out
    assert (desk / "my work" / ".gitignore").exists()
    assert {path.name for path in desk.iterdir()} == {"my work"}
