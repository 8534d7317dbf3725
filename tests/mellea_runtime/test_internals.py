"""mellea's private names: one file uses them, and a mellea that changes them is noticed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mellea_runtime
from mellea_runtime import CachedFormatter, MelleaIncompatible, internals

PACKAGE = Path(mellea_runtime.__file__).parent
OWN = ("self", "cls", "branch")


def test_mellea_is_what_the_private_names_were_written_for():
    assert internals.drifted() == []
    internals.check_version()


def test_a_name_that_is_gone_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(internals.TemplateFormatter, "_get_expected_variables")
    assert internals.drifted() == ["TemplateFormatter has no _get_expected_variables any more"]


def test_another_mellea_is_refused(monkeypatch: pytest.MonkeyPatch):
    internals.check_version.cache_clear()
    monkeypatch.setattr(internals, "version", lambda name: "0.9.1")
    with pytest.raises(MelleaIncompatible, match=r"mellea 0\.9\.1 is installed") as caught:
        internals.check_version()
    assert caught.value.installed == "0.9.1"
    internals.check_version.cache_clear()


def test_no_other_file_uses_what_is_private():
    for path in PACKAGE.rglob("*.py"):
        if path.name == "internals.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                assert isinstance(node.value, ast.Name) and node.value.id in OWN, f"{path.name}: {node.attr}"
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mellea."):
                assert not any(alias.name.startswith("_") for alias in node.names), path.name


def test_a_template_is_loaded_once_and_by_class(monkeypatch: pytest.MonkeyPatch):
    from mellea.stdlib.components import Instruction

    loads: list[object] = []
    formatter = CachedFormatter("m")
    original = internals.TemplateFormatter._load_template
    monkeypatch.setattr(
        internals.TemplateFormatter, "_load_template", lambda self, each: (loads.append(each), original(self, each))[1]
    )
    for _ in range(3):
        assert formatter.print(Instruction("write", requirements=["kindly"])).splitlines()[0] == "write"
    named_alike = type("Instruction", (Instruction,), {})
    formatter.print(named_alike("write"))
    assert len(loads) == 2


@pytest.mark.parametrize(
    "module", ["mellea_runtime", "flow_runtime.prompt", "flow_runtime.runner", "flow_runtime.local"]
)
def test_what_does_not_need_mellea_does_not_import_it(module: str):
    code = f"import sys, {module}; print('mellea' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"
