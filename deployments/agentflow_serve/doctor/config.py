"""Reads the facts about a serve config: its files, host names and port. Calls no provider, imports no node's code."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agentflow.errors import FlowError
from agentflow.ir import Code
from agentflow.placement import Replicas, predictor_replicas, stages
from agentflow.settings import roles_of
from agentflow.subflows import all_nodes
from agentflow_serve.args import AppArgs, parse_args
from agentflow_serve.doctor.database import read_server
from agentflow_serve.doctor.facts import App, Config, Demand, Lookup, Provider, Store
from agentflow_serve.doctor.machine import read_port
from agentflow_serve.doctor.mounts import filesystem_of
from agentflow_serve.errors import ServingError
from agentflow_serve.inputs import AppInputs, read_inputs
from agentflow_serve.serve_config import IMPORT_PATH, address_of, check_code, read_outline
from flow_runtime.hub_models import providers_of
from runtime_core.errors import AgentflowError, StoreUrlError
from runtime_core.stores.url import MEMORY, open_database, sqlite_path

if TYPE_CHECKING:
    from llmhub_runtime.models import RuntimeConfig

LOOKUP_S = 0.7
SQLITE_MAGIC = b"SQLite format 3\0"


def read_config_facts(path: Path) -> Config:
    """Raises AppInvalid for a file that is no serve config; what is wrong with one app is in its facts."""
    document = read_outline(path)
    apps = tuple(_app(app) for app in document["applications"])
    hosts = {provider.host for app in apps for provider in app.providers if provider.host is not None}
    return Config(apps, read_port(*address_of(document)), look_up(filter(_needs_lookup, hosts), timeout_s=LOOKUP_S))


def look_up(hosts: Iterable[str], *, timeout_s: float) -> dict[str, Lookup]:
    """Ask the name servers for all of them at once. A lookup cannot be stopped, so who is late is left behind."""
    found: dict[str, Lookup] = dict.fromkeys(hosts, "no answer")

    def ask(host: str) -> None:
        try:
            socket.getaddrinfo(host, None)
        except (OSError, UnicodeError):
            found[host] = "unknown"
        else:
            found[host] = "found"

    threads = [Thread(target=ask, args=(host,), daemon=True) for host in found]
    for thread in threads:
        thread.start()
    give_up = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, give_up - time.monotonic()))
    return dict(found)


def demand_of(inputs: AppInputs, args: AppArgs) -> Demand:
    """What the app's replicas ask for when it starts: the nodes' deployments, the predictor, the simulated model."""
    groups = [stage.replicas for stage in stages(inputs.plan, args.placement) if stage.deployment]
    groups += [predictor_replicas(inputs.plan), *([Replicas()] if inputs.needs_sim else [])]
    return sum((_of(replicas) for replicas in groups), Demand())


def _of(replicas: Replicas) -> Demand:
    number = replicas.min_replicas
    return Demand(number, number * replicas.num_cpus, number * replicas.num_gpus, number * replicas.memory)


def _app(document: Mapping[str, Any]) -> App:
    name = str(document.get("name") or "default")
    if document.get("import_path") != IMPORT_PATH:
        return App(name, ours=False)
    try:
        args = parse_args(document.get("args") or {})
        inputs = read_inputs(args)
        check_code(inputs, args)
    except (FlowError, AgentflowError, ServingError, OSError) as exc:
        return App(name, problem=str(exc))
    flow = inputs.plan.flow
    modules = [
        node.transform.module
        for node in all_nodes(flow.nodes.values())
        if isinstance(node.transform, Code) and node.transform.module
    ]
    return App(
        name,
        nodes=len(inputs.plan.settings),
        roles=tuple(sorted(roles_of(flow))),
        modules=tuple(dict.fromkeys(modules)),
        demand=demand_of(inputs, args),
        providers=_providers(inputs, inputs.llmhub) if inputs.llmhub else (),
        store=_store(args.store),
        asks_for_keys=args.auth == "keys",
        open_to_network=args.open_to_network,
    )


def _providers(inputs: AppInputs, llmhub: RuntimeConfig) -> tuple[Provider, ...]:
    used = providers_of(inputs.plan.flow, llmhub)
    return tuple(
        Provider(name, provider.env_key, urlsplit(provider.api_base).hostname if provider.api_base else None)
        for name, provider in llmhub.providers.items()
        if name in used
    )


def _needs_lookup(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return host != "localhost"
    return False


def _store(url: str) -> Store:
    if url == MEMORY:
        return Store(url)
    try:
        open_database(url)
        if not url.startswith("sqlite:"):
            return read_server(url)
        path = sqlite_path(url).absolute()
    except StoreUrlError as exc:
        return Store(url, problem=str(exc))
    folder = path.parent
    return Store(
        url,
        path=str(path),
        folder_exists=folder.is_dir(),
        writable=os.access(folder, os.W_OK | os.X_OK) and (not path.exists() or os.access(path, os.W_OK)),
        is_sqlite=_is_sqlite(path),
        filesystem=filesystem_of(folder.resolve(), _mounts()),
    )


def _is_sqlite(path: Path) -> bool:
    """Whether the file is one, or may become one. Read, not opened: SQLite itself would leave files beside it."""
    try:
        with path.open("rb") as file:
            return file.read(len(SQLITE_MAGIC)) in (b"", SQLITE_MAGIC)
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _mounts() -> str:
    try:
        return Path("/proc/self/mounts").read_text()
    except OSError:
        return ""
