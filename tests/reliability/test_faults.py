"""The short form of `make faults`: what needs no cluster. RELIABILITY rows 1-3, 20, 23-26."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faults.__main__ import IN_PROCESS
from faults.disconnects import End, Visits, visit
from faults.lanes import run_lanes
from faults.report import Report, closing
from faults.stall import Stall

ROOT = Path(__file__).parents[2]


def test_a_short_run_finds_no_violation():
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "faults", *IN_PROCESS, "--short"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("\n0 violations\n")
    began = {line.split(" (")[0] for line in done.stdout.splitlines() if line.endswith(" s)")}
    assert began == set(IN_PROCESS)


@pytest.mark.parametrize(("found", "short", "holds"), [(20, False, True), (19, False, False), (19, True, True)])
def test_a_run_that_falls_short_of_its_counts_fails_and_says_by_how_much(found: int, short: bool, holds: bool):
    report = Report("soak")
    report.reach("attempts", found, 20)
    said, held = closing([report], short=short)
    assert held is holds
    assert any("NOT REACHED by soak: 19 of 20 attempts" in line for line in said) is not holds
    assert report.did == [f"{found} of 20 attempts"]


def test_a_violation_fails_even_a_short_run():
    report = Report("soak")
    report.expect("the sky is up", False)
    said, held = closing([report], short=True)
    assert not held
    assert said[-1] == "1 violations"


def test_scenarios_run_side_by_side_and_one_that_dies_is_a_violation(tmp_path: Path):
    """The first two can only end if both run at once."""
    os.mkfifo(tmp_path / "pipe")

    def run(name: str) -> Report:
        if name == "dying":
            os._exit(3)
        (tmp_path / "pipe").open("rb" if name == "reading" else "wb").close()
        return Report(name).end()

    reports = {report.name: report for report in run_lanes(["reading", "writing", "dying"], run, at_once=2)}
    assert {name: len(report.violations) for name, report in reports.items()} == {
        "reading": 0,
        "writing": 0,
        "dying": 1,
    }
    assert "exit status 3" in reports["dying"].violations[0]


def test_whoever_gives_up_the_reports_interrupts_the_scenarios_that_still_run(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    ended = tmp_path / "ended"

    def run(name: str) -> Report:
        if name == "short":
            (tmp_path / "pipe").open("rb").close()
            return Report(name).end()
        try:
            (tmp_path / "pipe").open("wb").close()
            while True:
                signal.pause()
        finally:
            ended.touch()

    reports = run_lanes(["long", "short"], run, at_once=2)
    assert next(reports).name == "short"
    reports.close()
    assert ended.exists()


def test_a_number_that_does_not_grow_for_long_has_stalled():
    times, numbers = (1000.0, 1060.0, 1060.0, 1120.0, 1121.0, 1500.0, 1561.0), (0, 0, 1, 0, 1, 2, 2)
    stall = Stall(60.0, now=iter(times).__next__)
    assert [stall.at(number) for number in numbers] == [False, False, False, False, True, False, True]


async def test_clients_come_no_longer_when_none_of_them_leaves():
    async def client(number: int) -> End:
        return ("left", 1.0) if number < 5 else ("had the whole answer", None)

    ends = await visit(client, Visits(leave=10, at_once=2, slower=1.0), Stall(3, now=itertools.count().__next__))
    assert sum(at is not None for _, at in ends.values()) == 5
    assert len(ends) > 5
