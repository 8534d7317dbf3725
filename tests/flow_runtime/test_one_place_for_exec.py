"""Text becomes running code in one named file, and nothing is unpickled (RELIABILITY S3, S11)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SOURCES = sorted(path for root in ("graphs", "runtime", "deployments") for path in (REPOSITORY / root).rglob("*.py"))
RUNS_CODE = {"exec", "eval", "compile", "__import__"}
REVIVES_OBJECTS = {"pickle", "cloudpickle", "dill", "marshal", "shelve"}
THE_ONE_FILE = Path("runtime/flow_runtime/user_code.py")


def names_used(path: Path) -> Iterator[str]:
    """Every built-in name that a module calls or passes on, and every module that it imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Name(id=name):
                yield name
            case ast.Attribute(value=ast.Name(id="builtins"), attr=name):
                yield name
            case ast.Import(names=names):
                yield from (alias.name.partition(".")[0] for alias in names)
            case ast.ImportFrom(module=module):
                yield (module or "").partition(".")[0]


def test_one_file_runs_text_and_none_revives_objects():
    found = {
        path.relative_to(REPOSITORY): used
        for path in SOURCES
        if (used := set(names_used(path)) & (RUNS_CODE | REVIVES_OBJECTS))
    }
    assert found == {THE_ONE_FILE: {"exec", "compile"}}


def test_the_gate_sees_what_it_is_for(tmp_path: Path):
    module = tmp_path / "bad.py"
    module.write_text("import pickle as p\nrun = eval\nbuiltins.exec('1')\nfrom marshal import loads\n")
    assert {"pickle", "eval", "exec", "marshal"} <= set(names_used(module))
    assert len(SOURCES) > 20
