"""`python -m fuzz`: runs mutated inputs in processes of their own, prints what they did, and fails on a finding."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click

from fuzz.worker import HANG_S, replay

REJECT_P99_MS = 50.0
ENOUGH = 300
"""Refusals from which one in a hundred can be told."""
SILENT_S = 60.0
"""How long one input may keep its process without a sign: Python cannot be interrupted inside a C function."""
YARDSTICK_MS = 8.0


@click.command()
@click.option("--seconds", default=120.0, show_default=True, help="How long to look.")
@click.option("--seed", default=None, type=int, help="Makes the same inputs again.  [default: from the clock]")
@click.option("--inputs", default=None, type=int, help="Stop after this many inputs of each kind.")
@click.option("--workers", default=2, show_default=True, help="Processes at work.")
@click.option("--folder", default="fuzz-findings", show_default=True, type=click.Path(path_type=Path))
@click.option("--replay", "again", default=None, type=click.Path(path_type=Path, exists=True), help="A saved input.")
def main(
    *, seconds: float, seed: int | None, inputs: int | None, workers: int, folder: Path, again: Path | None
) -> None:
    """Look for inputs that crash, hang, grow, reach outside or are refused too slowly."""
    if again is not None:
        paths = sorted(path for path in again.iterdir()) if again.is_dir() else [again]
        fine = [replay(path, report=click.echo) for path in paths]
        sys.exit(0 if all(fine) else 1)
    seed = int(time.time()) if seed is None else seed
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    given = {"seed": seed, "step": workers, "seconds": seconds, "most": inputs, "folder": str(folder)}
    started = [
        (first, subprocess.Popen([sys.executable, "-m", "fuzz.worker", json.dumps({**given, "first": first})]))
        for first in range(workers)
    ]
    findings = [problem for first, process in started if (problem := _watch(first, process, folder)) is not None]
    reports = [json.loads(path.read_text()) for path in sorted(folder.glob("report-*.json"))]
    findings += [_sentence(finding, seed, folder) for report in reports for finding in report["findings"]]
    findings += _show(reports, seed)
    for path in (*folder.glob("report-*"), *folder.glob("progress-*")):
        path.unlink()
    for finding in findings:
        click.echo(finding)
    click.echo(f"{len(findings)} findings")
    sys.exit(1 if findings else 0)


def _watch(first: int, process: subprocess.Popen[bytes], folder: Path) -> str | None:
    """Wait for a worker; what it was at when it died or when it had to be ended."""
    progress = folder / f"progress-{first}"
    while True:
        try:
            code = process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            silent = progress.exists() and time.time() - progress.stat().st_mtime > SILENT_S
            if not silent:
                continue
            process.kill()
            process.wait()
            return f"hang: no sign for {SILENT_S:g} s at {progress.read_text()!r}"
        if code == 0:
            return None
        return (
            f"death: exit {code} at {progress.read_text()!r}" if progress.exists() else f"death: exit {code} at start"
        )


def _sentence(finding: dict[str, Any], seed: int, folder: Path) -> str:
    path = folder / finding["file"]
    shown = ascii(path.read_bytes()[:120])
    return f"{finding['target']}: {finding['problem']} (seed {seed}, input {finding['index']}, {path}): {shown}"


def _show(reports: list[dict[str, Any]], seed: int) -> list[str]:
    """Print the table; which targets refuse too slowly."""
    slow: list[str] = []
    slowness = _slowness()
    click.echo(f"seed {seed}; a fixed piece of work takes {slowness:.1f} times as long as on a quiet machine")
    click.echo(f"{'target':12} {'inputs':>8} {'refused':>8} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8} {'grew MiB':>8}")
    for name in reports[0]["tallies"] if reports else ():
        tallies = [report["tallies"][name] for report in reports]
        times = sorted(ms for tally in tallies for ms in tally["refusals_ms"]) or [0.0]
        p50, p99 = (times[min(len(times) - 1, int(len(times) * share))] for share in (0.5, 0.99))
        runs, refused = (sum(tally[key] for tally in tallies) for key in ("runs", "refused"))
        grown = max(tally["growth_mib"] for tally in tallies)
        click.echo(f"{name:12} {runs:8} {refused:8} {p50:8.2f} {p99:8.2f} {times[-1]:8.1f} {grown:8.1f}")
        if len(times) >= ENOUGH and p99 > REJECT_P99_MS * slowness:
            slow.append(f"{name}: slow: one refusal in a hundred takes more than {p99:.0f} ms of CPU")
    total = sum(tally["runs"] for report in reports for tally in report["tallies"].values())
    click.echo(f"{total} inputs; hangs above {HANG_S:g} s of CPU count as findings")
    return slow


def _slowness() -> float:
    start = time.thread_time()
    sum(number * number for number in range(100_000))
    return max(1.0, (time.thread_time() - start) * 1000 / YARDSTICK_MS)


if __name__ == "__main__":
    main()
