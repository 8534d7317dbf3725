"""Shell completion: what a shell is offered, by the protocol that its script speaks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agentflow_serve.commands import COMMANDS
from agentflow_serve.commands.completion import SHELLS
from agentflow_serve.commands.new import TEMPLATES
from support.command_line import agentflow

BIN = Path(sys.executable).parent
HEAVY = ("ray", "any_llm", "kserve", "pydantic", "yaml", "jinja2", "rich")


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "flow.yaml",
        "other.json",
        "third.yml",
        "notes.txt",
        ".hidden.yaml",
        "deep/er/inner.yaml",
        "side/x.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def offered(line: str) -> list[str]:
    """What bash is offered for the last word of a line, by a process of its own."""
    words = line.split(" ")
    protocol = {"_AGENTFLOW_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [BIN / "agentflow"], env={**os.environ, **protocol}, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stderr == ""
    return [item.removeprefix("plain,") for item in done.stdout.splitlines()]


def test_commands_and_options_are_offered():
    assert offered("agentflow ") == list(COMMANDS)
    assert offered("agentflow va") == ["validate"]
    assert {"--input", "--llmhub", "--code"} <= set(offered("agentflow run flow.yaml --"))
    assert offered("agentflow run flow.yaml --code ") == ["inline", "modules", "off"]
    assert offered("agentflow new x --template ") == list(TEMPLATES)
    assert offered("agentflow completion ") == list(SHELLS)


@pytest.mark.parametrize("command", ["validate", "plan", "test", "run", "serve", "doctor --config", "run f --llmhub"])
def test_flow_files_and_configs_are_offered_with_the_folders_on_the_way(command: str):
    assert offered(f"agentflow {command} ") == ["deep/", "flow.yaml", "other.json", "side/", "third.yml"]


def test_a_folder_that_is_the_only_choice_is_opened_and_a_hidden_file_must_be_asked_for():
    assert offered("agentflow validate de") == ["deep/er/inner.yaml"]
    assert offered("agentflow validate deep/e") == ["deep/er/inner.yaml"]
    assert offered("agentflow validate si") == ["side/"]
    assert offered("agentflow validate .h") == [".hidden.yaml"]


def test_the_shell_itself_completes_where_there_is_nothing_for_us_or_a_name_needs_quotes(desk: Path):
    assert offered("agentflow validate no") == ["file,no"]
    (desk / "two words.yaml").touch()
    assert offered("agentflow validate tw") == ["file,tw"]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_each_shell_calls_the_command(shell: str):
    ended = agentflow("completion", shell)
    assert (ended.code, ended.err) == (0, "")
    assert f"_AGENTFLOW_COMPLETE={shell}_complete" in ended.out


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "completed"),
    [("agentflow pl", "plan"), ("agentflow plan fl", "flow.yaml"), ("agentflow plan --pl", "--placement")],
)
def test_bash_completes_with_the_sourced_script(words: str, completed: str):
    script = f"""
eval "$(agentflow completion bash)"
complete -p agentflow >/dev/null
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_LINE="{words}"
_agentflow_completion agentflow
echo "${{COMPREPLY[@]}}"
"""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-ec", script], env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=120
    )
    assert (done.stdout.split(), done.stderr) == ([completed], "")


def test_a_completion_imports_nothing_heavy():
    """It runs at every press of a key: what it costs is click."""
    code = f"""
import os, sys
from agentflow_serve.commands import COMMANDS, main
sys.argv = ["agentflow"]
for command in ("", *(f"{{name}} --" for name in COMMANDS)):
    os.environ["COMP_WORDS"] = f"agentflow {{command}}"
    os.environ["COMP_CWORD"] = "2" if command else "1"
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, ended.code
print("heavy:", *sorted(set(sys.modules) & set({HEAVY!r})))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "_AGENTFLOW_COMPLETE": "bash_complete"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    printed = done.stdout.splitlines()
    assert printed.count("plain,--help") == len(COMMANDS), done.stderr
    assert printed[-1] == "heavy:"
