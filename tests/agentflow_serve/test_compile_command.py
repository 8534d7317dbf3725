"""`agentflow compile` as a user runs it: what it writes, what it refuses, and that it writes all or nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentflow_serve.commands.exits import Exit
from agentflow_serve.compiled import output
from agentflow_serve.errors import OutputNotWritten
from support.command_line import agentflow

CONFIGS = Path(__file__).parents[2] / "configs"
TRIAGE = CONFIGS / "flows" / "triage.yaml"
BRIEF = CONFIGS / "flows" / "research_brief.yaml"
INNER = """\
version: "1.0"
metadata: {name: inner}
context: {requires: [x]}
nodes:
  a:
    inputs: [{name: x, type: string}]
    outputs: [{name: out, type: object}]
    transform: {mode: code, module: "os:getcwd"}
edges:
  - {from: _input.x, to: a.x}
  - {from: a.out, to: _output}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path = Path()) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("target", ["kserve", "ray", "local"])
def test_a_folder_is_made_with_the_agent(target: str):
    ended = agentflow("compile", str(BRIEF), "-o", "out", "--target", target)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"wrote {Path('out/agent.py')}\n"
    assert set(files()) == {"out/agent.py", "out/.agentflow.json"}
    compile(Path("out/agent.py").read_text(), "agent.py", "exec")


def test_a_folder_of_ours_is_renewed_and_python_may_have_been_there():
    assert agentflow("compile", str(BRIEF), "-o", "out", "--generate-tests").code == 0
    before = files()
    Path("out/__pycache__").mkdir()
    Path("out/__pycache__/agent.cpython-311.pyc").write_bytes(b"x")
    assert agentflow("compile", str(BRIEF), "-o", "out", "--generate-tests").code == 0
    assert files() == before
    assert set(before) == {"out/agent.py", "out/test_agent.py", "out/.agentflow.json"}


@pytest.mark.parametrize("name", ["mine.txt", "agent.py"])
def test_work_of_somebody_is_never_written_over(name: str):
    Path("out").mkdir()
    Path("out", name).write_text("mine")
    ended = agentflow("compile", str(BRIEF), "-o", "out")
    assert (ended.code, ended.out) == (Exit.ENVIRONMENT, "")
    assert "choose another folder" in ended.err
    assert files() == {f"out/{name}": b"mine"}


def test_a_method_that_was_changed_by_hand_stays():
    assert agentflow("compile", str(BRIEF), "-o", "out").code == 0
    with Path("out/agent.py").open("a") as file:
        file.write("# mine\n")
    changed = files()
    ended = agentflow("compile", str(BRIEF), "-o", "out")
    assert ended.code == Exit.ENVIRONMENT
    assert "agent.py was changed by hand" in ended.err
    assert files() == changed


def test_files_beside_others_go_over_compiled_files_only():
    Path("agent.py").write_text("mine = 1\n")
    ended = agentflow("compile", str(BRIEF), "-o", "other.py", "--generate-tests")
    assert ended.out.split() == ["wrote", "other.py", "wrote", "test_other.py"]
    assert agentflow("compile", str(BRIEF), "-o", "other.py").code == 0
    ended = agentflow("compile", str(BRIEF), "-o", "agent.py", "--generate-tests")
    assert ended.code == Exit.ENVIRONMENT
    assert "agent.py was not compiled from a flow" in ended.err
    assert set(files()) == {"agent.py", "other.py", "test_other.py"}
    assert Path("agent.py").read_text() == "mine = 1\n"


def test_a_name_that_python_cannot_import_is_refused():
    ended = agentflow("compile", str(BRIEF), "-o", "my-agent.py")
    assert ended.code == Exit.USAGE
    assert "cannot be imported" in ended.err
    assert files() == {}


def test_validate_only_writes_nothing():
    assert agentflow("compile", str(TRIAGE), "--validate-only").out == f"{TRIAGE}: can be compiled\n"
    ended = agentflow("compile", str(TRIAGE), "--validate-only", "--forbid-code")
    assert ended.code == Exit.INVALID_FLOW
    assert files() == {}


def test_forbidden_code_is_a_finding_with_its_place_also_in_a_subflow():
    ended = agentflow("compile", str(TRIAGE), "-o", "out", "--forbid-code")
    line = 1 + TRIAGE.read_text().splitlines().index("    transform:")
    assert ended.code == Exit.INVALID_FLOW
    assert f"{TRIAGE}:{line}:5 nodes.account.transform: error code-forbidden: node 'account' runs code" in ended.err
    assert "nodes.urgent.transform" in ended.err and "2 errors" in ended.err
    Path("inner.yaml").write_text(INNER)
    outer = INNER.replace("inner", "outer").replace("    transform:", "    type: subflow\n    flow: inner.yaml\n    #")
    Path("outer.yaml").write_text(outer)
    assert agentflow("compile", "outer.yaml", "--validate-only").code == 0
    assert "nodes.a.flow.nodes.a.transform: error" in agentflow("compile", "outer.yaml", "--forbid-code").err
    assert agentflow("compile", str(BRIEF), "-o", "out", "--forbid-code").code == 0


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("op: io.format_response", "op: io.unheard_of", "unknown-operation"),
        ("target: ray", "target: lambda", "lambda-target"),
        ("role: llm.search", "model: {provider: nobody, name: m}", "unknown-provider"),
        ("role: llm.search", "role: llm.nobody", "unknown-role"),
        ("{{ ticket }}", "{{ ticket() }}", "bad-template"),
    ],
)
def test_what_cannot_be_compiled_is_a_finding_with_its_place(old: str, new: str, code: str):
    text = TRIAGE.read_text()
    Path("flow.yaml").write_text(text.replace(old, new, 1))
    llmhub = str(CONFIGS / "llmhub.sim.yaml")
    ended = agentflow("compile", "flow.yaml", "-o", "out", "--generate-tests", "--llmhub", llmhub)
    assert ended.code == Exit.INVALID_FLOW
    line = 1 + text[: text.index(old)].count("\n")
    assert f"flow.yaml:{line}:" in ended.err and f"error {code}: " in ended.err
    assert set(files()) == {"flow.yaml"}


def test_a_disk_that_fails_half_way_leaves_nothing(monkeypatch: pytest.MonkeyPatch):
    write, calls = Path.write_text, 0

    def full(self: Path, *args: object, **named: object) -> int:
        nonlocal calls
        calls += 1
        if calls % 2 == 0:
            raise OSError(28, "No space left on device")
        return write(self, *args, **named)  # pyright: ignore

    monkeypatch.setattr(Path, "write_text", full)
    for name in ("out", "agent.py"):
        ended = agentflow("compile", str(BRIEF), "-o", name, "--generate-tests")
        assert ended.code == Exit.ENVIRONMENT
        assert "No space left" in ended.err
        assert os.listdir() == []


def test_a_link_is_not_followed_out_of_the_folder(here: Path):
    (here / "outside.py").write_text('"""The flow x, compiled by agentflow from y.\n"""')
    (here / "in").mkdir()
    (here / "in" / "agent.py").symlink_to(here / "outside.py")
    with pytest.raises(OutputNotWritten):
        output.write_beside(here / "in", {"agent.py": "new"})


def test_package_is_the_package_command_and_says_when_there_is_none(monkeypatch: pytest.MonkeyPatch):
    import sys
    from types import SimpleNamespace

    import click

    called: list[tuple[str, str]] = []

    @click.command()
    @click.argument("flow")
    @click.option("-o", "--output")
    def package(flow: str, output: str) -> None:
        called.append((flow, output))

    monkeypatch.setitem(sys.modules, "agentflow_serve.commands.package", SimpleNamespace(command=package))
    assert agentflow("compile", str(BRIEF), "-o", "out", "--package").code == 0
    assert called == [(str(BRIEF), "out-container")]
    monkeypatch.setitem(sys.modules, "agentflow_serve.commands.package", None)
    ended = agentflow("compile", str(BRIEF), "-o", "new", "--package")
    assert ended.code == Exit.ENVIRONMENT
    assert "no `agentflow package`" in ended.err
