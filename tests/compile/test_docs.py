"""docs/compile.md shows what really happens."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from agentflow_serve.compiled.args import _READ, VARIABLE
from support.command_line import agentflow

PAGE = (Path(__file__).parents[2] / "docs" / "compile.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_page_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    [flow] = blocks("yaml")
    [console] = blocks("console")
    [method, program] = blocks("python")
    Path("hello.yaml").write_text(flow)
    command, _, shown = console.removeprefix("$ agentflow ").partition("\n")
    ended = agentflow(*command.split())
    assert (ended.code, ended.out) == (0, shown.replace("/", os.sep))
    assert method in Path("hello/agent.py").read_text()
    space: dict[str, Any] = {}
    exec(program, space)
    assert space["errors"] == []
    assert (space["code"], space["tests"]) == (
        Path("hello/agent.py").read_text(),
        Path("hello/test_agent.py").read_text(),
    )


def test_the_page_names_every_variable():
    assert set(re.findall(rf"{VARIABLE}\w+", PAGE)) == {VARIABLE + name.upper() for name in _READ}
