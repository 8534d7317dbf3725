"""The `agentflow` command. Each subcommand is a module, imported when it is called: `--help` needs none of them."""

from __future__ import annotations

import importlib
import sys

import click
from click.shell_completion import CompletionItem

from agentflow_serve.commands.exits import Exit, explain

COMMANDS = {
    "new": "Write a new project that works at once.",
    "validate": "Check a flow file and report every finding.",
    "plan": "Show what a flow becomes: nodes, stages, critical path.",
    "test": "Run the tests of a flow, with scripted models.",
    "run": "Run one request through a flow, in this process.",
    "compile": "Write a flow as a Python agent, for kserve, Ray Serve or any program.",
    "serve": "Serve a flow on Ray Serve behind the KServe protocols.",
    "keys": "Make, list and revoke the API keys of those who may call.",
    "ledger": "Show what was spent, every attempt at a model, and how budgets stand.",
    "sessions": "List, show and delete what flows remember of their sessions.",
    "actions": "List, show and answer what flows ask people.",
    "package": "Write the context of a container image for a flow.",
    "manifests": "Write, or check, the Kubernetes manifests of a flow.",
    "deploy": "Deploy a flow onto a Ray cluster that runs.",
    "doctor": "Check this machine, and a serve config, for what breaks in practice.",
    "schema": "Print the JSON Schema of the flow file.",
    "completion": "Print the completion script for bash, zsh or fish.",
}

EPILOG = (
    "Exit codes: 0 all is well; 1 a run, the service, a test or a check of the doctor failed; 2 wrong usage; "
    "3 the flow file is invalid; 4 something around it is missing or wrong (a file, a port, a key, a configuration); "
    "130 interrupted."
)


class Commands(click.Group):
    """Knows the commands by name and their help without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f"agentflow_serve.commands.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        names = [CompletionItem(name, help=COMMANDS[name]) for name in COMMANDS if name.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="agentflow-serve")
def cli() -> None:
    """Agent flows as files, served as distributed inference graphs."""


def main() -> None:
    """Entry point of the console script."""
    try:
        code = cli.main(standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(Exit.INTERRUPTED)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except Exception as exc:  # noqa: BLE001 - the process edge: an error made on purpose ends as one sentence
        sys.exit(explain(exc))
    sys.exit(code if isinstance(code, int) else Exit.OK)
