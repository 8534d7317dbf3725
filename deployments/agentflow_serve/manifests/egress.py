"""Which hosts a flow calls: those of its models, its http operations and its stores, as far as files can say."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from agentflow.feature_use import operation_of
from agentflow.ir import Flow
from agentflow.settings import models_of
from agentflow.subflows import all_nodes
from flow_runtime.hub_models import called_roles
from flow_runtime.operations.hosts import AllowedHost, normal_host
from llmhub_runtime.models import SIM, RuntimeConfig

_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "postgres": 5432, "redis": 6379}


@dataclass(frozen=True, slots=True, order=True)
class Destination:
    """A host and a port; `host` is `*` where only a run knows it, as in a URL with a placeholder."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def address(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The host as a number, if it is one."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    @property
    def service_namespace(self) -> str | None:
        """The namespace of a host that is, or may be, a Service: `db.shop.svc.cluster.local`, `db.shop`."""
        parts = self.host.split(".")
        return parts[1] if self.address is None and (self.is_service or len(parts) == 2) else None

    @property
    def is_service(self) -> bool:
        """Whether the host can be nothing else."""
        return self.host.split(".")[2:3] == ["svc"]

    @property
    def in_namespace(self) -> bool:
        """Whether the host can only be a Service of the own namespace, because it has no dot."""
        return "." not in self.host and ":" not in self.host and self.host != "*"


def destinations(
    flow: Flow,
    llmhub: RuntimeConfig | None,
    *,
    embedder: str | None,
    stores: Iterable[str],
    entries: Iterable[str],
) -> tuple[Destination, ...]:
    """Every place outside the cluster's Ray that a run may call. `entries` are `host` or `host:port`, `stores` URLs."""
    found = {*_http(flow), *_endpoints(flow), *(_named(entry) for entry in entries)}
    if llmhub is not None:
        found |= set(_models(flow, llmhub, embedder))
    for url in stores:
        if (place := _of_url(url)) is not None:
            found.add(place)
    return tuple(sorted(found))


def _models(flow: Flow, llmhub: RuntimeConfig, embedder: str | None) -> Iterator[Destination]:
    from any_llm import AnyLLM

    from llmhub_runtime.endpoints import public_address

    bindings = [llmhub.roles.get(role) or llmhub.defaults for role in called_roles(flow, embedder)]
    providers = {binding.provider for binding in bindings if binding is not None}
    providers |= {model.provider for model in models_of(flow) if model.endpoint is None}
    for name in {llmhub.serving(provider) for provider in providers} - {SIM}:
        provider = llmhub.providers.get(name)
        base = provider.api_base if provider and provider.api_base else public_address(name, any_llm=AnyLLM)
        yield (_of_url(base) if base else None) or Destination("*", 443)


def _endpoints(flow: Flow) -> Iterator[Destination]:
    for model in models_of(flow):
        if model.endpoint and (place := _of_url(model.endpoint)):
            yield place


def _http(flow: Flow) -> Iterator[Destination]:
    for node in all_nodes(flow.nodes.values()):
        spec = operation_of(node)
        if spec is not None and spec.op.startswith("http."):
            url = spec.args.get("url")
            yield (_of_url(url) if isinstance(url, str) else None) or Destination("*", 443)


def _of_url(url: str) -> Destination | None:
    """Where a URL leads; None where it has a placeholder in that place, or no host."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host or any(sign in parts.netloc for sign in "${}"):
        return None
    return Destination(normal_host(host), port or _PORTS.get(parts.scheme, 443))


def _named(entry: str) -> Destination:
    allowed = AllowedHost.parse(entry)
    return Destination(allowed.host, allowed.port or 443)
