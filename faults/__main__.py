"""`python -m faults`: runs the scenarios, prints what each did and what was checked, and fails on a violation."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import click

from faults.report import Report, lines

IN_PROCESS = ("overshoot", "soak", "disconnects", "excess", "full_disk")
ON_RAY_SERVE = ("cluster", "http_overshoot")
ALL = IN_PROCESS + ON_RAY_SERVE


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(ALL))
@click.option("--short", is_flag=True, help="Fewer and smaller rounds; shows only what is badly wrong.")
@click.option("--write", type=click.Path(path_type=Path), hidden=True, help="Run here and write the report as JSON.")
def main(names: tuple[str, ...], *, short: bool, write: Path | None) -> None:
    """Run the scenarios NAMES, or all of them."""
    if write is not None:
        [name] = names
        logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of every client that leaves, and many do
        write.write_text(json.dumps(asdict(import_module(f"faults.{name}").run(short))))
        return
    reports: list[Report] = []
    for name in names or ALL:
        reports.append(_in_a_child(name, short=short))
        click.echo("\n".join(lines(reports[-1])))
    _close(reports)


def _in_a_child(name: str, *, short: bool) -> Report:
    """Each scenario has a process of its own, from which its others are forked."""
    with tempfile.TemporaryDirectory(prefix="af-") as folder:
        target = Path(folder) / "report.json"
        command = [sys.executable, "-m", "faults", name, "--write", str(target), *(["--short"] if short else [])]
        done = subprocess.run(command, check=False)
        if done.returncode != 0:
            raise click.ClickException(f"the scenario {name} did not end well (exit status {done.returncode})")
        return Report(**json.loads(target.read_text()))


def _close(reports: list[Report]) -> None:
    from faults.checker import INVARIANTS

    met = {name for report in reports for name in report.checked}
    click.echo("\n".join(f"{name}: {text}" for name, text in INVARIANTS.items() if name in met))
    count = sum(len(report.violations) for report in reports)
    click.echo(f"{count} violations")
    sys.exit(1 if count else 0)


if __name__ == "__main__":
    main()
