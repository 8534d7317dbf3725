"""How a command ends: the exit codes, and an error as sentences instead of a traceback."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from agentflow.findings import Finding


class Exit(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2
    INVALID_FLOW = 3
    ENVIRONMENT = 4
    INTERRUPTED = 130


def explain(error: Exception) -> int:
    """Say on stderr what went wrong; the exit code. A defect of ours is raised again with its traceback."""
    package = _package_of(error)
    if findings := getattr(error, "findings", ()):
        show_findings(findings)
        return Exit.INVALID_FLOW
    if package is None and not isinstance(error, OSError):
        raise error
    click.echo(f"error: {error}", err=True)
    return Exit.INVALID_FLOW if package == "agentflow" else Exit.ENVIRONMENT


def show_findings(findings: tuple[Finding, ...], *, err: bool = True) -> None:
    """Every finding on a line of its own, errors first, then a line that counts them."""
    from agentflow.findings import errors

    for finding in sorted(findings, key=lambda found: found.severity):
        click.echo(str(finding), err=err)
    bad = len(errors(findings))
    click.echo(f"{_count(bad, 'error')}, {_count(len(findings) - bad, 'warning')}", err=err)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _package_of(error: Exception) -> str | None:
    """Which package raised an error on purpose. Importing the trees to ask them would cost every command."""
    roots = {"agentflow", "runtime_core", "llmhub_runtime", "agent_runtime", "flow_runtime", "agentflow_serve"}
    return next((root for cls in type(error).__mro__ if (root := cls.__module__.partition(".")[0]) in roots), None)
