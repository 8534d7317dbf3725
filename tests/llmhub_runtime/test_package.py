"""What the package promises to those who import it."""

from __future__ import annotations

import subprocess
import sys

import llmhub_runtime


def test_importing_the_package_imports_no_sdk() -> None:
    heavy = ["any_llm", "openai", "anthropic", "ollama", "httpx", "uvicorn", "ray", "mellea"]
    program = f"import sys, llmhub_runtime; print([m for m in {heavy} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_what_is_promised_is_there() -> None:
    assert [name for name in llmhub_runtime.__all__ if not hasattr(llmhub_runtime, name)] == []
    assert sorted(llmhub_runtime.__all__) == llmhub_runtime.__all__
