"""`python -m faults`: runs the scenarios, prints what each did and what was checked, and fails on a violation."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Generator
from contextlib import closing as closed_after
from functools import partial
from importlib import import_module

import click

from faults.lanes import run_lanes
from faults.report import Report, closing, lines

SIDE_BY_SIDE = ("cluster", "soak", "overshoot", "full_disk", "excess")
"""Those that take longest first."""
ALONE = ("http_overshoot", "disconnects")
"""One keeps every core busy by itself, the other is judged by the clock."""
ALL = SIDE_BY_SIDE + ALONE
ON_RAY_SERVE = frozenset({"cluster", "http_overshoot"})
IN_PROCESS = tuple(name for name in ALL if name not in ON_RAY_SERVE)


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(ALL))
@click.option("--short", is_flag=True, help="Fewer and smaller rounds; shows only what is badly wrong.")
def main(names: tuple[str, ...], *, short: bool) -> None:
    """Run the scenarios NAMES, or all of them."""
    began, reports = time.monotonic(), list[Report]()
    with closed_after(_reports(names or ALL, short=short)) as found:
        for report in found:
            reports.append(report)
            click.echo("\n".join(lines(report)))
    end, holds = closing(reports, short=short)
    click.echo("\n".join((*end[:-1], f"took {time.monotonic() - began:.0f} s", end[-1])))
    sys.exit(0 if holds else 1)


def _reports(names: tuple[str, ...], *, short: bool) -> Generator[Report, None, None]:
    if not ON_RAY_SERVE.issuperset(names):
        from faults.rig import warm_up

        warm_up()
    run = partial(_run, short=short)
    for group, at_once in ((SIDE_BY_SIDE, 1 + (os.cpu_count() or 1)), (ALONE, 1)):
        yield from run_lanes([name for name in group if name in names], run, at_once=at_once)


def _run(name: str, *, short: bool) -> Report:
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of every client that leaves, and many do
    return import_module(f"faults.{name}").run(short)


if __name__ == "__main__":
    main()
