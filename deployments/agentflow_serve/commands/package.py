"""`agentflow package`: the context of a container image for one flow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agentflow_serve.commands.exits import Exit
from agentflow_serve.commands.options import budgets_option, embedder_option, feature_store_option, policy_option
from agentflow_serve.commands.paths import DOCUMENT


def _digest(_context: click.Context, _option: click.Parameter, digest: str | None) -> str | None:
    import re

    if digest is not None and not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise click.BadParameter("a digest is sha256: and 64 hexadecimal digits")
    return digest


@click.command("package")
@click.argument("flow", type=DOCUMENT)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="The folder to make."
)
@click.option("--llmhub", type=DOCUMENT, help="The models of the roles.")
@click.option("--store", help="The run store, such as postgresql://user@host/database.")
@click.option("--placement", type=click.Choice(["per_node", "inline"]), help="Overrule the flow's own placement.")
@feature_store_option
@embedder_option
@budgets_option
@policy_option
@click.option(
    "--lock",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The lock file with versions and hashes. [default: the one that agentflow-serve came with]",
)
@click.option("--base-digest", callback=_digest, help="The digest of the Python image; else the build must give it.")
def command(
    flow: Path, output: Path, llmhub: Path | None, lock: Path | None, base_digest: str | None, **settings: Any
) -> int:
    """Write a folder from which `docker build` makes the image of FLOW: with the libraries that this flow uses only.

    A folder that is there is renewed if it was made for the same flow and nobody has changed it.
    """
    from agentflow_serve.container.context import context_of
    from agentflow_serve.generated import write_generated

    made = context_of(flow, llmhub, settings, lock=lock, digest=base_digest)
    write_generated(output, made.files, kind="image", flow=made.flow)
    for code in made.installed_code:
        click.echo(f"note: the flow runs installed code, {code}: install its package in the Dockerfile too", err=True)
    click.echo(f"wrote {len(made.files)} files to {output}; next:")
    argument = "" if base_digest else "--build-arg PYTHON_DIGEST=sha256:... "
    click.echo(f"  docker build {argument}-t REGISTRY/{made.flow.lower()} {output}")
    return Exit.OK
