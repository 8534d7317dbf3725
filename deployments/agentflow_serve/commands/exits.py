"""How a command ends: the exit codes, and an error as sentences instead of a traceback."""

from __future__ import annotations

from enum import IntEnum

import click

from agentflow.errors import FlowError, FlowInvalid
from agentflow.findings import Finding, errors


class Exit(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2
    INVALID_FLOW = 3
    ENVIRONMENT = 4
    INTERRUPTED = 130


def explain(error: Exception) -> int:
    """Say on stderr what went wrong; the exit code. A defect of ours is raised again with its traceback."""
    if isinstance(error, FlowInvalid):
        show_findings(error.findings)
        return Exit.INVALID_FLOW
    if isinstance(error, FlowError):
        click.echo(f"error: {error}", err=True)
        return Exit.INVALID_FLOW
    if isinstance(error, OSError) or _is_ours(error):
        click.echo(f"error: {error}", err=True)
        return Exit.ENVIRONMENT
    raise error


def show_findings(findings: tuple[Finding, ...]) -> None:
    """Every finding on a line of its own, errors first, then a line that counts them."""
    for finding in sorted(findings, key=lambda found: found.severity):
        click.echo(str(finding), err=True)
    bad = len(errors(findings))
    click.echo(f"{_count(bad, 'error')}, {_count(len(findings) - bad, 'warning')}", err=True)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _is_ours(error: Exception) -> bool:
    """Whether an error was raised on purpose, told by its package: importing the trees here would cost every command."""
    roots = {"runtime_core", "llmhub_runtime", "flow_runtime", "agentflow_serve"}
    return any(cls.__module__.partition(".")[0] in roots for cls in type(error).__mro__)
