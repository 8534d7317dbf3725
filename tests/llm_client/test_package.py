"""What the package promises to those who import it."""

from __future__ import annotations

import ast
import pickle
import subprocess
import sys
from pathlib import Path

import llm_client
import llm_client.errors

HEAVY = ["any_llm", "openai", "anthropic", "httpx", "httpx2", "uvicorn", "ray", "mellea", "genai_prices"]


def test_importing_the_package_and_the_engine_imports_no_sdk() -> None:
    program = f"import sys, llm_client; llm_client.ExecutionEngine; print([m for m in {HEAVY} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_what_is_promised_is_there() -> None:
    assert [name for name in llm_client.__all__ if not hasattr(llm_client, name)] == []
    assert len(set(llm_client.__all__)) == len(llm_client.__all__)
    homes = llm_client._HOMES  # pyright: ignore[reportPrivateUsage]
    assert set(llm_client.__all__) == {name for names in homes.values() for name in names}


def test_every_way_to_a_provider_is_the_hub() -> None:
    """Nothing here talks to a provider itself: what is not metered cannot be sent (RELIABILITY S18)."""
    forbidden = {"any_llm", "openai", "anthropic", "httpx", "httpx2", "socket", "aiohttp", "requests", "urllib"}
    for path in Path(llm_client.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.partition(".")[0] for name in names} & forbidden == set(), path


def test_every_error_crosses_a_process_boundary_with_its_facts() -> None:
    kinds = [
        kind
        for kind in vars(llm_client.errors).values()
        if isinstance(kind, type) and kind.__module__ == "llm_client.errors"
    ]
    assert len({kind.code for kind in kinds}) == len(kinds) > 10
    for kind in kinds:
        error = kind("a sentence")
        facts = {name: f"<{name}>" for name in vars(error)}
        vars(error).update(facts)
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (kind, "a sentence", facts)
