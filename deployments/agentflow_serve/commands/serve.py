"""`agentflow serve`: `serve run` with a given config or one made from a flow, and a curl line when it is ready."""

from __future__ import annotations

import json
import shlex
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import click
import yaml

from agentflow_serve.commands.exits import Exit

POLL_S = 0.5


class ServeFailed(click.ClickException):
    exit_code = Exit.ENVIRONMENT


@click.command("serve")
@click.argument("flow", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A serve config, as for `serve run`, instead of FLOW.",
)
@click.option("--llmhub", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The models of the roles.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--placement", type=click.Choice(["per_node", "inline"]), help="Overrule the flow's own placement.")
@click.option("--address", help="A running Ray cluster; without it a local one is started and ended with the command.")
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
    address: str | None,
    write_config: Path | None,
    timeout: float,
    verbose: bool,
) -> int:
    """Serve FLOW, or the app of a serve config, until Ctrl-C.

    A given --config says everything itself: the other options are for FLOW.
    """
    if (flow is None) == (config is None):
        raise click.UsageError("give either FLOW or --config FILE")
    document = _config_of(flow, llmhub, host, port, placement) if flow else _read_config(config)
    if write_config is not None:
        write_config.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
        click.echo(f"wrote {write_config}; start it with: serve run {write_config}")
        return Exit.OK
    args = [_checked_args(app) for app in document["applications"]]
    base = _base_url(document)
    if address is None:
        _check_port(document)
    with TemporaryDirectory() as folder, _interruptible() as interrupted, _ray(address, verbose):
        path = config
        if path is None:
            path = Path(folder) / "serve.yaml"
            path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
        _deploy(path)
        _wait_until_running([app["name"] for app in document["applications"]], timeout, interrupted)
        if not interrupted.is_set():
            for app, (name, sample) in zip(document["applications"], args, strict=True):
                _show(base, app.get("route_prefix") or "/", name, sample)
            click.echo("Press Ctrl-C to stop.")
            interrupted.wait()
        click.echo("stopping ...", err=True)
    return Exit.OK


def _config_of(flow: Path, llmhub: Path | None, host: str, port: int, placement: str | None) -> dict[str, Any]:
    """A serve config that carries the flow and the llmhub.yaml, so that it runs from any directory."""
    from agentflow import load

    loaded = load(flow)
    args: dict[str, Any] = {"flow": loaded.flow.model_dump(mode="json", by_alias=True, exclude_unset=True)}
    if llmhub is not None:
        args["llmhub"] = yaml.safe_load(llmhub.read_text())
    if placement is not None:
        args["placement"] = placement
    app = {
        "name": loaded.flow.metadata.name,
        "route_prefix": "/",
        "import_path": "agentflow_serve:app",
        "args": args,
    }
    return {"proxy_location": "HeadOnly", "http_options": {"host": host, "port": port}, "applications": [app]}


def _read_config(path: Path | None) -> dict[str, Any]:
    assert path is not None
    try:
        document = yaml.safe_load(path.read_text())
    except yaml.YAMLError as exc:
        raise ServeFailed(f"{path} is not YAML: {exc}") from exc
    if not isinstance(document, dict) or not document.get("applications"):
        raise ServeFailed(f"{path} is not a serve config: it has no applications")
    return document


def _checked_args(app: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The model name and a sample request; a bad flow, role or argument ends the command before Ray starts."""
    from agentflow.samples import sample_request
    from agentflow_serve.args import parse_args
    from agentflow_serve.inputs import read_inputs

    planned = read_inputs(parse_args(app.get("args") or {})).plan
    return planned.name, sample_request(planned.signature)


def _base_url(document: Mapping[str, Any]) -> str:
    options = document.get("http_options") or {}
    host = options.get("host", "127.0.0.1")
    return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{options.get('port', 8000)}"


def _check_port(document: Mapping[str, Any]) -> None:
    options = document.get("http_options") or {}
    host, port = options.get("host", "127.0.0.1"), options.get("port", 8000)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            raise ServeFailed(f"port {port} on {host} is in use: stop what listens there, or choose another") from exc


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that the shutdown is always the same."""
    interrupted = threading.Event()

    def handle(_signal: int, _frame: FrameType | None) -> None:
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
    own: dict[str, Any] = {"include_dashboard": False} if address is None else {}
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
                raise ServeFailed(f"'{name}' did not start: {_last_line(app.message)}")
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


def _last_line(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given; run again with --verbose"


def _show(base: str, route_prefix: str, name: str, sample: dict[str, Any]) -> None:
    url = f"{base}{route_prefix.rstrip('/')}/v1/models/{name}"
    body = json.dumps({"instances": [sample]}, ensure_ascii=False)
    click.echo(f"'{name}' is ready at {url}")
    click.echo(f"curl -s {url}:predict -H 'content-type: application/json' -d {shlex.quote(body)}")
