"""`agentflow schema`: the JSON Schema of the flow file, for editors."""

from __future__ import annotations

import click


@click.command("schema")
def command() -> None:
    """Print the JSON Schema of the flow file."""
    click.echo(schema_text())


def schema_text() -> str:
    import json

    from agentflow.json_schema import flow_json_schema

    return json.dumps(flow_json_schema(), indent=2)
