"""`agentflow doctor`: what breaks in practice, found before anything starts."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentflow_serve.commands.exits import Exit
from agentflow_serve.commands.paths import DOCUMENT

if TYPE_CHECKING:
    from agentflow_serve.doctor.checks import Check

MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


@click.command("doctor")
@click.option("--config", type=DOCUMENT, help="Also check this serve config: its flows, models, keys, store and port.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON document.")
def command(config: Path | None, as_json: bool) -> int:
    """Check this machine, and a serve config, for what breaks in practice. Starts nothing and calls nobody.

    Keys and the addresses of proxies are never shown, and no node's code is imported. The exit code is 1 when
    something fails; a warning is no failure.
    """
    checks = _checks(config)
    failed = any(check.status == "fail" for check in checks)
    if as_json:
        click.echo(json.dumps({"healthy": not failed, "checks": [asdict(check) for check in checks]}, indent=2))
    else:
        _show(checks)
    return Exit.FAILED if failed else Exit.OK


def _checks(path: Path | None) -> list[Check]:
    from agentflow_serve.doctor.capacity import check_capacity
    from agentflow_serve.doctor.facts import Demand
    from agentflow_serve.doctor.installation import check_installation
    from agentflow_serve.doctor.machine import read_machine, read_port
    from agentflow_serve.doctor.service import check_port, check_service
    from agentflow_serve.doctor.surroundings import check_surroundings, joins_a_cluster

    machine = read_machine(os.environ)
    checks = [*check_installation(machine), *check_surroundings(machine)]
    elsewhere = joins_a_cluster(machine)
    if path is None:
        return [*checks, *check_capacity(machine, None, elsewhere=elsewhere), check_port(read_port(), asked=False)]
    from agentflow_serve.doctor.checks import fail
    from agentflow_serve.doctor.config import read_config_facts
    from agentflow_serve.errors import AppInvalid

    try:
        config = read_config_facts(path)
    except AppInvalid as exc:
        wrong = fail("config", str(exc), "correct it, then run the doctor again: nothing else of it was looked at")
        return [*checks, *check_capacity(machine, None, elsewhere=elsewhere), wrong]
    demand = sum((app.demand for app in config.apps), Demand())
    return [
        *checks,
        *check_capacity(machine, demand, elsewhere=elsewhere),
        check_port(config.port, asked=True),
        *check_service(config, machine.environ),
    ]


def _show(checks: list[Check]) -> None:
    for check in checks:
        click.echo(f"{MARKS[check.status]}  {check.message}")
        if check.hint:
            click.echo(f"      {check.hint}")
    count = Counter(check.status for check in checks)
    warnings = f"{count['warn']} warning{'' if count['warn'] == 1 else 's'}"
    click.echo(f"{len(checks)} checks: {count['ok']} ok, {warnings}, {count['fail']} failed")
