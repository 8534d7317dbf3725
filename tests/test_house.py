"""The house rules that a reader relies on: which package may import which, and nothing happens at import."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "graphs": ["agentflow"],
    "runtime": ["runtime_core", "llmhub_runtime", "llm_client", "mellea_runtime", "agent_runtime", "flow_runtime"],
    "deployments": ["agentflow_serve"],
}
ORDER = [package for group in PACKAGES.values() for package in group]
FORBIDDEN = {
    "graphs": {"ray", "kserve", "any_llm", "mellea", "httpx", "asyncio", "socket", "subprocess", "time", "random"},
    "runtime": {"kserve", "ray"},
}
HEAVY = ("any_llm", "ray", "kserve", "mellea", "uvicorn", "httpx", "httpx2", "fastapi", "numpy", "genai_prices")
HEAVY += ("duckdb", "hopsworks", "hsfs", "asyncpg", "redis")


def modules(package: str) -> list[Path]:
    [root] = [group for group, packages in PACKAGES.items() if package in packages]
    return sorted((ROOT / root / package).rglob("*.py"))


@cache
def imported(path: Path, package: str) -> frozenset[str]:
    """Top-level names of everything that a module imports, wherever in it; relative imports are the package's own."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(package if node.level else (node.module or "").partition(".")[0])
    return frozenset(names)


@pytest.mark.parametrize("package", ORDER)
def test_imports_go_one_way(package: str):
    later = set(ORDER[ORDER.index(package) + 1 :])
    wrong = {str(path.relative_to(ROOT)): bad for path in modules(package) if (bad := imported(path, package) & later)}
    assert wrong == {}


@pytest.mark.parametrize("root", FORBIDDEN)
def test_a_root_keeps_away_from_what_belongs_to_the_next_one(root: str):
    for package in PACKAGES[root]:
        for path in modules(package):
            assert imported(path, package) & FORBIDDEN[root] == set(), path


def test_every_package_is_typed_and_in_the_wheel():
    pyproject = (ROOT / "pyproject.toml").read_text()
    for root, packages in PACKAGES.items():
        for package in packages:
            assert (ROOT / root / package / "py.typed").exists()
            assert f'"{root}/{package}"' in pyproject
        found = {path.name for path in (ROOT / root).iterdir() if (path / "__init__.py").exists()}
        assert found == set(packages), "a new package must be added to the order above"


def test_importing_a_package_imports_nothing_heavy():
    """One process for all: what one of them imported would still be there, and is said for that one and every later."""
    packages = [*ORDER, "agentflow_serve.commands", "agentflow_serve.commands.validate"]
    code = (
        "import importlib, json, sys\n"
        f"heavy, found = set({HEAVY!r}), {{}}\n"
        f"for package in {packages!r}:\n"
        "    importlib.import_module(package)\n"
        "    found[package] = sorted(set(sys.modules) & heavy)\n"
        "print(json.dumps(found))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == {package: [] for package in packages}


def test_a_replica_imports_no_more_than_every_node_needs():
    """An app starts as many processes as it has nodes, at once: a tenth of a second in each is a second for all."""
    code = (
        "import json, sys\n"
        "import agentflow_serve.nodes\n"
        "node = sorted(sys.modules)\n"
        "import agentflow_serve.predictor\n"
        "print(json.dumps([node, sorted(sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    node, predictor = map(set, json.loads(done.stdout))
    assert node & {"agentflow.loading", "agentflow.planning", "sqlite3", "llm_client", "llmhub_runtime.hub"} == set()
    shared = {"agentflow_serve.session_ledger", "agent_runtime.ledger.transactions", "agent_runtime.ledger.upkeep"}
    assert predictor & (shared | {"agentflow.loading", "sqlite3", "llm_client", "kserve"}) == set()


def test_only_the_folder_of_the_cluster_tests_has_any_and_has_no_other_files():
    """`make test-serve` looks for them nowhere else, and `make test-units` skips what is marked."""
    tests = Path(__file__).parent
    marked = {path for path in tests.rglob("*.py") if "mark.serve" in path.read_text()}
    assert marked - {Path(__file__)} == set((tests / "serve").glob("test_*.py"))
    for path in (tests / "serve").glob("test_*.py"):
        assert re.search(r"^pytestmark = \[?\s*pytest\.mark\.serve\b", path.read_text(), re.MULTILINE), path


def test_only_the_named_file_runs_code_that_is_text():
    guilty = {
        str(path.relative_to(ROOT))
        for package in ORDER
        for path in modules(package)
        if re.search("exec|eval", text := path.read_text())
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("exec", "eval")
    }
    assert guilty == {"runtime/flow_runtime/user_code.py"}


def test_nothing_is_pickled_by_hand():
    for package in ORDER:
        for path in modules(package):
            assert imported(path, package) & {"pickle", "cloudpickle", "marshal", "shelve"} == set(), path
