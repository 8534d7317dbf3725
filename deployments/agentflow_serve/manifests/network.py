"""Who may talk to the pods, and whom they may talk to: nobody, but for what is listed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from agentflow_serve.manifests.common import (
    DASHBOARD_PORT,
    GATEWAY_PORT,
    HOSTS,
    METRICS_PORTS,
    SERVE_PORT,
    Document,
    document,
    pod_labels,
    selector,
)
from agentflow_serve.manifests.egress import Destination
from agentflow_serve.manifests.settings import ManifestSettings
from agentflow_serve.manifests.subject import Subject

CLIENT_LABEL = "agentflow-serve/client"
"""Namespaces with this label set to `true` may call the service."""
NOT_PUBLIC = ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")
"""What a public host never is; 169.254.169.254 gives out the credentials of the machine."""


def network_policies(subject: Subject, settings: ManifestSettings) -> list[Document]:
    """A default that denies all, then one policy for each reason to talk."""
    return [
        _policy(subject, "default-deny", policyTypes=["Ingress", "Egress"]),
        _policy(
            subject,
            "cluster",
            policyTypes=["Ingress", "Egress"],
            ingress=[{"from": [_own(subject)]}],
            egress=[{"to": [_own(subject)]}, _dns()],
        ),
        _policy(subject, "ingress", policyTypes=["Ingress"], ingress=_ingress(settings)),
        _policy(subject, "autoscaler", only="head", policyTypes=["Egress"], egress=[{"ports": _ports([443, 6443])}]),
        *_outside(subject, settings),
    ]


def _ingress(settings: ManifestSettings) -> list[Document]:
    clients = [
        {"namespaceSelector": {"matchLabels": {CLIENT_LABEL: "true"}}},
        _namespace(settings.gateway_namespace),
    ]
    return [
        {"from": [_namespace(settings.operator_namespace)], "ports": _ports([DASHBOARD_PORT, SERVE_PORT])},
        {"from": clients, "ports": _ports([SERVE_PORT, *([GATEWAY_PORT] if settings.inference_service else [])])},
        {"from": [_namespace(settings.prometheus_namespace)], "ports": _ports(METRICS_PORTS.values())},
    ]


def _outside(subject: Subject, settings: ManifestSettings) -> list[Document]:
    listed = list(subject.destinations)
    if settings.redis is not None:
        host, _, port = settings.redis.rpartition(":")
        listed.append(Destination(host, int(port)))
    if not listed:
        return []
    by_peer: dict[str, set[int]] = defaultdict(set)
    peers: dict[str, Document] = {}
    for place in sorted(listed):
        for key, peer in _peers(place).items():
            by_peer[key].add(place.port)
            peers[key] = peer
    egress = [{"to": [peers[key]], "ports": _ports(sorted(ports))} for key, ports in by_peer.items()]
    annotations = {HOSTS: ",".join(map(str, sorted(listed)))}
    return [_policy(subject, "egress", annotations=annotations, policyTypes=["Egress"], egress=egress)]


def _peers(place: Destination) -> dict[str, Document]:
    """Kubernetes knows addresses and namespaces, no names: a public name is every public address.

    A name with one dot may be a Service or public, as `db.shop` and `example.com` are, so both are let through.
    """
    if place.address is not None:
        cidr = f"{place.address}/{place.address.max_prefixlen}"
        return {cidr: {"ipBlock": {"cidr": cidr}}}
    if place.in_namespace:
        return {"here": {"podSelector": {}}}
    found: dict[str, Document] = {}
    if (namespace := place.service_namespace) is not None:
        found[f"namespace {namespace}"] = _namespace(namespace)
    if not place.is_service:
        found["public"] = {"ipBlock": {"cidr": "0.0.0.0/0", "except": list(NOT_PUBLIC)}}
    return found


def _policy(
    subject: Subject, suffix: str, *, only: str | None = None, annotations: dict[str, str] | None = None, **spec: object
) -> Document:
    matched = pod_labels(subject, only) if only else selector(subject)
    body = {"podSelector": {"matchLabels": matched}, **spec}
    name = f"{subject.name}-{suffix}"
    return document(subject, "networking.k8s.io/v1", "NetworkPolicy", name, annotations=annotations, spec=body)


def _own(subject: Subject) -> Document:
    return {"podSelector": {"matchLabels": selector(subject)}}


def _namespace(name: str) -> Document:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def _dns() -> Document:
    return {
        "to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
        "ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")],
    }


def _ports(numbers: Iterable[int]) -> list[Document]:
    return [{"protocol": "TCP", "port": number} for number in numbers]
