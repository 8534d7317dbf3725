"""`agentflow deploy`: a flow onto a Ray cluster that runs, over the REST API that KubeRay uses."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agentflow_serve.commands.exits import Exit
from agentflow_serve.commands.options import (
    auth_option,
    budgets_option,
    embedder_option,
    feature_store_option,
    open_option,
    policy_option,
)
from agentflow_serve.commands.paths import DOCUMENT

if TYPE_CHECKING:
    from agentflow_serve.rest_api import ServeApi

ADDRESS = "RAY_API_SERVER_ADDRESS"
TOPOLOGY_S = 30.0


@click.command("deploy")
@click.argument("flow", required=False, type=DOCUMENT)
@click.option("--config", type=DOCUMENT, help="A serve config, or the manifest of a RayService, instead of FLOW.")
@click.option("--llmhub", type=DOCUMENT, help="The models of the roles.")
@click.option("--store", help="The run store, such as postgresql://user@host/database.")
@click.option("--placement", type=click.Choice(["per_node", "inline"]), help="Overrule the flow's own placement.")
@auth_option
@open_option
@feature_store_option
@embedder_option
@budgets_option
@policy_option
@click.option("--address", envvar=ADDRESS, help=f"The cluster's dashboard, such as http://head:8265. [env: {ADDRESS}]")
@click.option("--token-file", type=click.Path(path_type=Path), help="[default: RAY_AUTH_TOKEN, or Ray's own file]")
@click.option("--dry-run", is_flag=True, help="Check, and show what would change or be sent; change nothing.")
@click.option("--prune", is_flag=True, help="Take away the applications that the config does not have.")
@click.option("--timeout", default=600.0, show_default=True, help="Seconds to wait until the graph is ready.")
def command(
    flow: Path | None,
    config: Path | None,
    llmhub: Path | None,
    address: str | None,
    token_file: Path | None,
    dry_run: bool,
    prune: bool,
    timeout: float,
    **settings: Any,
) -> int:
    """Deploy FLOW, or the apps of a serve config, onto a running cluster, and wait until they are what the flow says.

    The cluster serves what the config says and nothing else; without --prune it is refused where that would take an
    application away.
    """
    if (flow is None) == (config is None):
        raise click.UsageError("give FLOW, or --config, and not both")
    if address is None and not dry_run:
        raise click.UsageError("--address says where to deploy (or --dry-run, to see what would be sent)")
    document = _document(flow, config, llmhub, settings)
    if _problems(document):
        return Exit.FAILED
    if address is None:
        _show(document)
        return Exit.OK

    from agentflow_serve.rest_api import ServeApi, read_token

    with ServeApi(address, read_token(os.environ, token_file)) as api:
        return _deploy(api, document, address, dry_run=dry_run, prune=prune, timeout_s=timeout)


def _document(
    flow: Path | None, config: Path | None, llmhub: Path | None, settings: Mapping[str, Any]
) -> dict[str, Any]:
    from agentflow_serve.self_contained import self_contained
    from agentflow_serve.serve_config import config_of, read_deployable

    if config is not None:
        if llmhub is not None or any(value is not None for value in settings.values()):
            raise click.UsageError("a serve config says everything itself: the other options are for FLOW")
        return dict(self_contained(read_deployable(config)).document)
    assert flow is not None
    made = config_of(flow, llmhub, host="0.0.0.0", port=8000, settings=settings)
    return {**made, "proxy_location": "EveryNode"}


def _problems(document: dict[str, Any]) -> bool:
    from agentflow_serve.manifest_check.serve_rules import check_serve_config
    from agentflow_serve.serve_config import check_config

    problems = list(check_serve_config(document))
    for path, message in problems:
        click.echo(f"{path}: {message}" if path else message, err=True)
    if not problems:
        check_config({**document, "applications": _ours(document)}, None)
    return bool(problems)


def _ours(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The apps of our builder with the flow inside. One in a ConfigMap is known to its pods alone."""
    from agentflow_serve.serve_config import IMPORT_PATH

    apps = [app for app in document["applications"] if app.get("import_path") == IMPORT_PATH]
    return [app for app in apps if isinstance((app.get("args") or {}).get("flow"), dict)]


def _show(document: Mapping[str, Any]) -> None:
    from agentflow_serve.manifests.yaml_text import yaml_of

    click.echo(yaml_of(dict(document)), nl=False)


def _deploy(
    api: ServeApi, document: dict[str, Any], address: str, *, dry_run: bool, prune: bool, timeout_s: float
) -> int:
    from agentflow_serve.errors import DeployFailed
    from agentflow_serve.rest_api import wait_until_running

    running = api.applications()
    wanted = {app.get("name", "default"): app for app in document["applications"]}
    leaving = sorted(running.keys() - wanted.keys())
    for name, app in wanted.items():
        click.echo(f"{_change(app, running.get(name))} '{name}'")
    for name in leaving:
        click.echo(f"take away '{name}'" if prune else f"would take away '{name}'")
    if dry_run:
        return Exit.OK
    if leaving and not prune:
        raise DeployFailed(
            f"{address} also serves {', '.join(map(repr, leaving))}, which the config does not have: "
            "add it to the config, or take it away with --prune"
        )
    api.deploy(document)
    wait_until_running(api, list(wanted), timeout_s=timeout_s, say=lambda text: click.echo(text, err=True))
    wrong = _unlike_the_flow(api, _ours(document), timeout_s)
    for sentence in wrong:
        click.echo(sentence, err=True)
    if wrong:
        return Exit.FAILED
    for name in wanted:
        click.echo(f"'{name}' runs on {address} as the flow says")
    return Exit.OK


def _change(app: Mapping[str, Any], running: Mapping[str, Any] | None) -> str:
    if running is None:
        return "add"
    before = running.get("deployed_app_config") or {}
    return "leave" if all(before.get(key) == value for key, value in app.items()) else "change"


def _unlike_the_flow(api: ServeApi, apps: list[dict[str, Any]], timeout_s: float) -> list[str]:
    """Where the deployed graph is not that of the IR. Serve learns who calls whom a moment after the start."""
    from agentflow_serve.args import parse_args
    from agentflow_serve.inputs import read_inputs
    from agentflow_serve.rest_api import wait_for_topology
    from agentflow_serve.topology import topology_of

    wrong: list[str] = []
    for app in apps:
        args = parse_args(app["args"])
        expected = topology_of(read_inputs(args), args)
        name = app.get("name", "default")
        wrong += wait_for_topology(api, name, expected, timeout_s=min(timeout_s, TOPOLOGY_S))
    return wrong
