"""`agentflow schema`: the JSON Schema of the flow file, for editors."""

from __future__ import annotations

import json

import click

from agentflow.json_schema import flow_json_schema


@click.command("schema")
def command() -> None:
    """Print the JSON Schema of the flow file."""
    click.echo(json.dumps(flow_json_schema(), indent=2))
