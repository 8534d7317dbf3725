"""`agentflow completion`: the script with which a shell completes commands, options and flow files."""

from __future__ import annotations

import click

SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    bash, in ~/.bashrc:  eval "$(agentflow completion bash)"
    zsh, in ~/.zshrc:    eval "$(agentflow completion zsh)"
    fish:                agentflow completion fish > ~/.config/fish/completions/agentflow.fish
    """
    from click.shell_completion import get_completion_class

    completion = get_completion_class(shell)
    assert completion is not None
    script = completion(ctx.find_root().command, {}, "agentflow", "_AGENTFLOW_COMPLETE")
    click.echo(script.source(), nl=False)
