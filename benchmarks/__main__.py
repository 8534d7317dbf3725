"""`python -m benchmarks`: runs the benchmarks, prints one table, and fails where a figure is far off its target."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import click

from benchmarks.harness import Figure, show

IN_PROCESS = (
    "local_runs",
    "loading",
    "compiling",
    "engine",
    "mellea_sessions",
    "agent_runtime",
    "orchestration",
    "ledger",
    "postgres",
    "fair_queue",
)
ON_RAY_SERVE = ("serve_per_node", "serve_inline", "serve_memory", "serve_start", "ledger_replicas")
ALL = IN_PROCESS + ON_RAY_SERVE


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(ALL))
@click.option("--short", is_flag=True, help="Fewer and smaller runs; shows only what is badly wrong.")
@click.option("--in-process", is_flag=True, help="Only what needs no Ray cluster.")
@click.option("--write", type=click.Path(path_type=Path), hidden=True, help="Run here and write the figures as JSON.")
def main(names: tuple[str, ...], *, short: bool, in_process: bool, write: Path | None) -> None:
    """Run the benchmarks NAMES, or all of them."""
    chosen = names or (IN_PROCESS if in_process else ALL)
    if write is not None:
        figures = [figure for name in chosen for figure in import_module(f"benchmarks.{name}").measure(short)]
        write.write_text(json.dumps([asdict(figure) for figure in figures]))
        return
    figures = []
    for name in chosen:
        click.echo(f"{name} ...", err=True)
        figures += _in_a_child(name, short=short)
    show(figures)
    if not all(figure.passes_gate for figure in figures):
        sys.exit(1)


def _in_a_child(name: str, *, short: bool) -> list[Figure]:
    """Each benchmark has a process of its own: what one imports and leaves behind does not slow the next one."""
    with tempfile.TemporaryDirectory(prefix="af-") as folder:
        target = Path(folder) / "figures.json"
        command = [sys.executable, "-m", "benchmarks", name, "--write", str(target), *(["--short"] if short else [])]
        done = subprocess.run(command, check=False)
        if done.returncode != 0:
            raise click.ClickException(f"the benchmark {name} did not end well (exit status {done.returncode})")
        return [Figure(**each) for each in json.loads(target.read_text())]


if __name__ == "__main__":
    main()
