"""RELIABILITY F9: a few seconds of `make fuzz`, always the same inputs; and a defect that is planted is found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def fuzz(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "fuzz", "--folder", str(folder), *arguments]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=200
    )


def test_a_short_run_with_fixed_inputs_finds_nothing(tmp_path: Path):
    done = fuzz("--seed", "1", "--inputs", "45", "--seconds", "100", folder=tmp_path / "findings")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 findings" in done.stdout
    assert list((tmp_path / "findings").iterdir()) == []


PLANTED = """
import os, sys, time
from pathlib import Path
from fuzz import worker
from fuzz.targets import Target
from fuzz.watch import install, watched

def crash(data): raise KeyError("x") if b"x" in data else ValueError
def hang(data):
    while True: time.monotonic()
def grow(data): return len(bytes(200 * 2**20)) > 0 and len(b"a" * (200 * 2**20)) > 0
def reach(data):
    with watched(): open(os.devnull).close()
    return True

install()
for run in (crash, hang, grow, reach):
    target = Target(run.__name__, [b""], run, (ValueError,))
    print(worker.run_one(target, b"...x..." * 10).problem)
print(worker.minimised(Target("crash", [b""], crash, (ValueError,)), b"...x..." * 10, "crash: KeyError in crash"))
"""


def test_a_planted_defect_of_every_kind_is_found_and_made_small():
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", PLANTED], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    crash, hang, grow, reach, small = done.stdout.splitlines()
    assert crash.startswith("crash: KeyError in crash") and hang.startswith("hang: more than 1 s")
    assert grow.startswith("memory: ") and reach.startswith("effect: open ")
    assert small == "b'x'"


def test_a_saved_input_can_be_run_again(tmp_path: Path):
    saved = tmp_path / "template-1-2"
    saved.write_bytes(b"{{ x.__class__ }}")
    done = fuzz("--replay", str(saved), folder=tmp_path / "none")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "template-1-2: fine" in done.stdout
