"""What all documents share: metadata, labels, ports, and the security of a container."""

from __future__ import annotations

from typing import Any

from agentflow_serve.container.files import USER_ID
from agentflow_serve.manifests.subject import Subject

Document = dict[str, Any]

SERVE_PORT = 8000
DASHBOARD_PORT = 8265
GATEWAY_PORT = 8080
METRICS_PORTS = {"metrics": 8080, "as-metrics": 44217, "dash-metrics": 44227}
"""The user of our image. It needs no name on the machine, only to be nobody's else."""
FINGERPRINT = "agentflow-serve/fingerprint"
HOSTS = "agentflow-serve/egress-hosts"
CONTAINER_SECURITY: Document = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": USER_ID,
    "runAsGroup": USER_ID,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
POD_SECURITY: Document = {
    "runAsNonRoot": True,
    "runAsUser": USER_ID,
    "runAsGroup": USER_ID,
    "fsGroup": USER_ID,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def selector(subject: Subject) -> dict[str, str]:
    """The labels that pods of this service have through every upgrade; Ray's own change with the cluster."""
    return {"app.kubernetes.io/instance": subject.name}


def labels(subject: Subject) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "agentflow",
        **selector(subject),
        "app.kubernetes.io/managed-by": "agentflow",
    }


def pod_labels(subject: Subject, component: str) -> dict[str, str]:
    """Only these: KubeRay finds its pods by labels of its own, `app.kubernetes.io/name` among them."""
    return {**selector(subject), "app.kubernetes.io/component": component}


def document(
    subject: Subject, api: str, kind: str, name: str, *, annotations: dict[str, str] | None = None, **body: Any
) -> Document:
    """One object. Everything but `kind: Namespace` lives in the subject's namespace."""
    metadata: Document = {"name": name}
    if kind != "Namespace":
        metadata["namespace"] = subject.namespace
    metadata["labels"] = labels(subject)
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **body}


def serve_service(subject: Subject) -> str:
    """The Service that KubeRay makes in front of the proxies."""
    return f"{subject.name}-serve-svc"
