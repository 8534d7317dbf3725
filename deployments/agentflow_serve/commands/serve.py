"""`agentflow serve`: `serve run` with a given config or one made from a flow, and a curl line when it is ready."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from agentflow_serve.commands.exits import Exit, explain
from agentflow_serve.commands.options import (
    auth_option,
    budgets_option,
    embedder_option,
    feature_store_option,
    open_option,
    policy_option,
)
from agentflow_serve.commands.paths import DOCUMENT
from agentflow_serve.ports import port_problem

if TYPE_CHECKING:
    from agentflow_serve.self_contained import SelfContained
    from agentflow_serve.serve_config import CheckedApp

POLL_S = 0.5
FOR_FLOW = (
    *("llmhub", "host", "port", "placement", "auth", "open_to_network"),
    *("feature_store", "embedder", "budgets", "policy", "write_config"),
)


class ServeFailed(click.ClickException):
    exit_code = Exit.ENVIRONMENT


@click.command("serve")
@click.argument("flow", required=False, type=DOCUMENT)
@click.option(
    "--config",
    type=DOCUMENT,
    help="A serve config, as for `serve run`, instead of FLOW.",
)
@click.option("--llmhub", type=DOCUMENT, help="The models of the roles.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--placement", type=click.Choice(["per_node", "inline"]), help="Overrule the flow's own placement.")
@auth_option
@open_option
@feature_store_option
@embedder_option
@budgets_option
@policy_option
@click.option("--address", help="A running Ray cluster; without it a local one is started and ended with the command.")
@click.option(
    "--reload", is_flag=True, help="Deploy again, in place, when the flow, its modules or the llmhub.yaml change."
)
@click.option("--write-config", type=click.Path(path_type=Path), help="Write the serve config there and do not serve.")
@click.option("--timeout", default=300.0, show_default=True, help="Seconds to wait until the graph is ready.")
@click.option("--verbose", is_flag=True, help="Show the logs of Ray and of every replica.")
def command(
    flow: Path | None,
    config: Path | None,
    llmhub: Path | None,
    host: str,
    port: int,
    placement: str | None,
    auth: str | None,
    open_to_network: bool | None,
    feature_store: str | None,
    embedder: str | None,
    budgets: Path | None,
    policy: Path | None,
    address: str | None,
    reload: bool,
    write_config: Path | None,
    timeout: float,
    verbose: bool,
) -> int:
    """Serve FLOW, or the apps of a serve config, until Ctrl-C.

    A serve config says everything itself: the options about models, address, callers, placement, features and rules,
    and --write-config, are for FLOW. With --reload nodes run in the predictor unless a placement is given, so that a
    request is answered by one version; a change that is not valid is told, and what was served goes on.
    """
    from agentflow_serve.key_files import export_keys
    from agentflow_serve.serve_config import address_of, check_config, check_openness

    _check_usage(flow, config)
    export_keys(os.environ)
    settings = {
        "placement": placement,
        "auth": auth,
        "open_to_network": open_to_network,
        "feature_store": feature_store,
        "embedder": embedder,
        "budgets": budgets and str(budgets),
        "policy": policy and str(policy),
    }
    read = _reader(flow, config, llmhub, host=host, port=port, settings=settings, contained=reload)
    first = read()
    document = first.document
    check_openness(document)
    if write_config is not None:
        write_config.write_text(_dump(document))
        click.echo(f"wrote {write_config}; start it with: serve run {write_config}")
        return Exit.OK
    environ = os.environ if address is None else None
    apps = check_config(document, environ)
    listens = address_of(document)
    if address is None:
        if problem := port_problem(*listens):
            raise ServeFailed(problem)
    else:
        _check_cluster(address)
    with TemporaryDirectory() as folder, _interruptible() as interrupted, _ray(address, verbose):

        def deploy(document: Mapping[str, Any], apps: tuple[CheckedApp, ...]) -> None:
            check_openness(document)
            path = Path(folder) / "serve.yaml"
            path.write_text(_dump(document))
            if not interrupted.is_set():
                _deploy(path)
            _wait_until_running([app.name for app in apps], timeout, interrupted)

        deploy(document, apps)
        if not interrupted.is_set():
            for app in apps:
                _show(listens, app)
            click.echo("Press Ctrl-C to stop.")
        if reload:
            _serve_changes(first, read, lambda fresh: deploy(fresh, check_config(fresh, environ)), interrupted)
        interrupted.wait()
    return Exit.OK


def _reader(
    flow: Path | None,
    config: Path | None,
    llmhub: Path | None,
    *,
    host: str,
    port: int,
    settings: Mapping[str, Any],
    contained: bool,
) -> Callable[[], SelfContained]:
    """How to get the serve config, again and again; with every file of it inside where they are watched."""
    from agentflow_serve.self_contained import SelfContained, self_contained, self_contained_flow
    from agentflow_serve.serve_config import config_of, read_config

    def read() -> SelfContained:
        if flow is not None:
            if contained:
                return self_contained_flow(flow, llmhub, host=host, port=port, settings=settings)
            return SelfContained(config_of(flow, llmhub, host=host, port=port, settings=settings))
        assert config is not None
        document = read_config(config)
        return self_contained(document, placement="inline").watching(config) if contained else SelfContained(document)

    return read


def _serve_changes(
    first: SelfContained,
    read: Callable[[], SelfContained],
    deploy: Callable[[Mapping[str, Any]], None],
    interrupted: threading.Event,
) -> None:
    from agentflow_serve.reload import serve_changes

    def say(text: str) -> None:
        click.echo(text, err=True)

    serve_changes(first, read=read, deploy=deploy, explain=_explain, say=say, stop=interrupted)


def _explain(error: Exception) -> None:
    """What is wrong with an edit. Unlike at the end of a command, nothing may come through: something is served."""
    try:
        if isinstance(error, click.ClickException):
            error.show()
        else:
            explain(error)
    except Exception as exc:  # noqa: BLE001 - the server must outlive an edit that Ray, or we, did not expect
        click.echo(f"error: {type(exc).__name__}: {exc}", err=True)


def _check_usage(flow: Path | None, config: Path | None) -> None:
    if (flow is None) == (config is None):
        raise click.UsageError("give either FLOW or --config FILE")
    given = click.get_current_context().get_parameter_source
    beside = [name for name in FOR_FLOW if given(name) is ParameterSource.COMMANDLINE]
    if config is not None and beside:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in beside)
        raise click.UsageError(f"{options}: only with FLOW; a serve config says this itself")


def _dump(document: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True)


def _check_cluster(address: str) -> None:
    """Ray itself tries for a minute, and says so in its own language."""
    host, _, port = address.rpartition("://")[2].partition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as exc:
        raise ServeFailed(f"no Ray cluster answers at {address}: {exc.strerror or exc}") from exc


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that the shutdown is always the same."""
    interrupted = threading.Event()

    def handle(_signal: int, _frame: FrameType | None) -> None:
        if not interrupted.is_set():
            click.echo("stopping ...", err=True)
        interrupted.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _ray(address: str | None, verbose: bool) -> Iterator[None]:
    click.echo("starting Ray ..." if address is None else f"connecting to Ray at {address} ...", err=True)
    import logging

    import ray
    from ray import serve

    level = logging.INFO if verbose else logging.ERROR
    own: dict[str, Any] = {}
    if address is None:
        own["include_dashboard"] = False
        # Serve kills a proxy that is not ready within 5 s, as on a busy machine, and with it the start.
        os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
    ray.init(address or "local", namespace="serve", log_to_driver=verbose, logging_level=level, **own)
    try:
        yield
    finally:
        if address is None:
            serve.shutdown()
        ray.shutdown()


def _deploy(path: Path) -> None:
    from ray.serve import scripts

    scripts.run.main([str(path), "--non-blocking"], standalone_mode=False)


def _wait_until_running(names: list[str], timeout_s: float, interrupted: threading.Event) -> None:
    from ray import serve
    from ray.serve.schema import ApplicationStatus

    give_up = time.monotonic() + timeout_s
    shown = ""
    while not interrupted.is_set():
        apps = {name: serve.status().applications.get(name) for name in names}
        for name, app in apps.items():
            if app is not None and app.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY):
                raise ServeFailed(f"'{name}' did not start: {_reason(app)}")
        if all(app is not None and app.status == ApplicationStatus.RUNNING for app in apps.values()):
            return
        deployments = [each for app in apps.values() if app for each in app.deployments.values()]
        ready = sum(each.status.value == "HEALTHY" for each in deployments)
        text = f"{ready} of {len(deployments)} deployments ready" if deployments else "building the app ..."
        if text != shown:
            click.echo(text, err=True)
            shown = text
        if time.monotonic() > give_up:
            raise ServeFailed(f"not ready after {timeout_s:g} s: {text}; run again with --verbose to see why")
        interrupted.wait(POLL_S)


def _reason(app: Any) -> str:
    """The last line of what the first failed deployment says, which is the error of its constructor."""
    failed = [each.message for each in app.deployments.values() if each.status.value in ("DEPLOY_FAILED", "UNHEALTHY")]
    lines = [line.strip() for line in "\n".join([app.message, *failed]).splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given; run again with --verbose"


def _show(listens: tuple[str, int], app: CheckedApp) -> None:
    host, port = listens
    base = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}{app.route_prefix.rstrip('/')}"
    url = f"{base}/v1/models/{app.model}"
    body = json.dumps({"instances": [app.sample]}, ensure_ascii=False)
    click.echo(f"'{app.model}' is ready at {url}")
    key = ' -H "authorization: Bearer $AGENTFLOW_KEY"' if app.asks_for_keys else ""
    click.echo(f"curl -s {url}:predict{key} -H 'content-type: application/json' -d {shlex.quote(body)}")
