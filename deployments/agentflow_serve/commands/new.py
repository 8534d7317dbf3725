"""`agentflow new`: a project that validates, runs, passes its tests and can be served, without keys."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click

TEMPLATES = {
    "chat": "a conversation that is remembered",
    "branch": "conditions, and a failure as a value",
    "code": "Python beside a prompt",
}


def _name(_context: click.Context, _argument: click.Parameter, name: str) -> str:
    from agentflow_serve.scaffold import NAME, suggested_name

    if NAME.fullmatch(name):
        return name
    instead = suggested_name(name)
    raise click.BadParameter(
        f"'{name}' is not lower-case letters, digits and hyphens, beginning with a letter (at most 63)"
        + (f"; try '{instead}'" if instead else "")
    )


@click.command("new")
@click.argument("name", callback=_name)
@click.option(
    "--template",
    type=click.Choice(list(TEMPLATES)),
    default="chat",
    show_default=True,
    help="; ".join(f"{name}: {text}" for name, text in TEMPLATES.items()) + ".",
)
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path, file_okay=False), help="The folder to make. [default: NAME]"
)
def command(name: str, template: str, folder: Path | None) -> None:
    """Write a project with a flow called NAME, which works at once: offline and without keys.

    A folder that is there and not empty stays as it is, and the exit code is 4.
    """
    from agentflow_serve.commands.schema import schema_text
    from agentflow_serve.scaffold import project, write_folder

    target = folder or Path(name)
    made = project(template, name)
    write_folder(target, {**made.files, "agentflow.schema.json": schema_text() + "\n"})
    click.echo(f"made {target} from the template '{template}'; next:\n")
    click.echo(f"  cd {shlex.quote(str(target))}")
    click.echo("  agentflow test flow.yaml")
    click.echo(f"  agentflow run flow.yaml --llmhub llmhub.yaml --input {shlex.quote(json.dumps(made.sample))}\n")
    click.echo("`agentflow serve --config serve.yaml` serves it; its README.md has the rest.")
