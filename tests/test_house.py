"""The house rules that a reader relies on: which package may import which, and nothing happens at import."""

from __future__ import annotations

import ast
import subprocess
import sys
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


def imported(path: Path, package: str) -> set[str]:
    """Top-level names of everything that a module imports, wherever in it; relative imports are the package's own."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(package if node.level else (node.module or "").partition(".")[0])
    return names


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


@pytest.mark.parametrize("package", [*ORDER, "agentflow_serve.commands", "agentflow_serve.commands.validate"])
def test_importing_a_package_imports_nothing_heavy(package: str):
    code = f"import sys, {package}; print(*sorted(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


def test_only_the_named_file_runs_code_that_is_text():
    guilty = {
        str(path.relative_to(ROOT))
        for package in ORDER
        for path in modules(package)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("exec", "eval")
    }
    assert guilty == {"runtime/flow_runtime/user_code.py"}


def test_nothing_is_pickled_by_hand():
    for package in ORDER:
        for path in modules(package):
            assert imported(path, package) & {"pickle", "cloudpickle", "marshal", "shelve"} == set(), path
