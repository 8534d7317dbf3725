"""The short form of `make faults`: what needs no cluster. RELIABILITY rows 1-3, 20, 23-26."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults.__main__ import IN_PROCESS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", IN_PROCESS)
def test_a_short_run_finds_no_violation(name: str):
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "faults", name, "--short"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("\n0 violations\n")
