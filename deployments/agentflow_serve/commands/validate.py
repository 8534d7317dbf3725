"""`agentflow validate`: every finding of a flow file, on one line each."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agentflow_serve.commands.exits import Exit, show_findings
from agentflow_serve.commands.paths import DOCUMENT

if TYPE_CHECKING:
    from agentflow.findings import Finding


@click.command("validate")
@click.argument("flow", type=DOCUMENT)
@click.option(
    "--llmhub",
    type=DOCUMENT,
    help="Also check that every role of the flow is in this llmhub.yaml.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON document.")
def command(flow: Path, llmhub: Path | None, as_json: bool) -> int:
    """Check FLOW and report everything that is wrong with it at once, with file, line and column."""
    from agentflow.findings import errors

    findings = _findings(flow, llmhub)
    bad = errors(findings)
    if as_json:
        click.echo(json.dumps({"valid": not bad, "findings": [_document(finding) for finding in findings]}, indent=2))
    elif findings:
        show_findings(findings, err=False)
    if not bad and not as_json:
        click.echo(f"{flow}: valid")
    return Exit.INVALID_FLOW if bad else Exit.OK


def _findings(flow: Path, llmhub: Path | None) -> tuple[Finding, ...]:
    from agentflow.loading import inspect_flow

    if llmhub is None:
        return inspect_flow(flow)[1]
    from llmhub_runtime.config_loader import load_runtime_config
    from llmhub_runtime.names import SIM

    config = load_runtime_config(str(llmhub))
    return inspect_flow(
        flow,
        roles=None if config.defaults else config.roles,
        providers=config.providers,
        unpriced=[
            name for name, role in config.roles.items() if role.price is None and config.serving(role.provider) != SIM
        ],
    )[1]


def _document(finding: Finding) -> dict[str, object]:
    document = asdict(finding)
    document["path"] = finding.dotted_path
    return document
