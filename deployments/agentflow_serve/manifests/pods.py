"""The pods of the Ray cluster: head and workers of one image, locked down, with room to drain."""

from __future__ import annotations

from typing import Any

from agentflow_serve.manifests.common import (
    CONTAINER_SECURITY,
    DASHBOARD_PORT,
    POD_SECURITY,
    SERVE_PORT,
    Document,
    pod_labels,
    selector,
)
from agentflow_serve.manifests.config import FLOW_FOLDER, KEYS_FOLDER, environment_name, flow_name, keys_name
from agentflow_serve.manifests.settings import ManifestSettings
from agentflow_serve.manifests.sizing import WorkerGroup
from agentflow_serve.manifests.subject import Subject

DRAIN_MARGIN_S = 30
HEAD_MEMORY = "4Gi"
API_ACCESS = "api-access"
API_ACCESS_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"


def image_of(subject: Subject) -> str:
    """The name that the overlays' `images` turn into a registry's."""
    return f"agentflow/{subject.name}"


def drain_s(subject: Subject) -> int:
    return int(subject.deadline_s) + DRAIN_MARGIN_S


def head_template(subject: Subject, settings: ManifestSettings) -> Document:
    ports = [_port("gcs-server", 6379), _port("dashboard", DASHBOARD_PORT), _port("client", 10001), *_serve_ports()]
    container = _container(subject, settings, "ray-head", ports, _resources(2, HEAD_MEMORY, 0))
    pod = _pod(subject, settings, container)
    # Only the autoscaler may talk to Kubernetes: its token is a volume that only its container mounts.
    pod["volumes"] = [*pod["volumes"], _api_access()]
    return _template(subject, "head", pod)


def worker_template(subject: Subject, settings: ManifestSettings, group: WorkerGroup) -> Document:
    resources = _resources(group.cpus, group.memory, group.gpus)
    container = _container(subject, settings, "ray-worker", _serve_ports(), resources)
    container["lifecycle"] = {"preStop": {"exec": {"command": ["/bin/bash", "-c", _end_of_worker(subject)]}}}
    pod = _pod(subject, settings, container)
    pod["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(subject)},
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]
    return _template(subject, "worker", pod)


def _end_of_worker(subject: Subject) -> str:
    """Serve starts other replicas elsewhere first, and what was accepted here may finish before Ray stops.

    The pod's endpoint is gone at once, so no new request comes in.
    """
    seconds = subject.answered_within_s
    drain = (
        "ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message 'the pod ends' "
        f"--deadline-remaining-seconds {seconds}"
    )
    return f"{drain}; sleep {seconds}; ray stop"


def autoscaler_mounts() -> list[Document]:
    return [
        {"name": API_ACCESS, "mountPath": API_ACCESS_PATH, "readOnly": True},
        {"name": "scratch", "mountPath": "/tmp"},
    ]


def _template(subject: Subject, component: str, pod: Document) -> Document:
    return {"metadata": {"labels": pod_labels(subject, component)}, "spec": pod}


def _pod(subject: Subject, settings: ManifestSettings, container: Document) -> Document:
    volumes: list[Document] = [
        {"name": "scratch", "emptyDir": {"sizeLimit": "10Gi"}},
        {"name": "state", "emptyDir": {"sizeLimit": "2Gi"}},
    ]
    if subject.keys:
        volumes.append({"name": "keys", "secret": {"secretName": keys_name(subject), "defaultMode": 0o440}})
    if settings.config_map:
        volumes.append({"name": "flow", "configMap": {"name": flow_name(subject)}})
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": drain_s(subject) + DRAIN_MARGIN_S,
        "securityContext": POD_SECURITY,
        "containers": [container],
        "volumes": volumes,
    }


def _container(
    subject: Subject, settings: ManifestSettings, name: str, ports: list[Document], resources: Document
) -> Document:
    mounts: list[dict[str, Any]] = [
        {"name": "scratch", "mountPath": "/tmp"},
        {"name": "state", "mountPath": "/var/lib/agentflow"},
    ]
    if subject.keys:
        mounts.append({"name": "keys", "mountPath": KEYS_FOLDER, "readOnly": True})
    if settings.config_map:
        mounts.append({"name": "flow", "mountPath": FLOW_FOLDER, "readOnly": True})
    return {
        "name": name,
        "image": image_of(subject),
        "imagePullPolicy": "IfNotPresent",
        "ports": ports,
        "envFrom": [{"configMapRef": {"name": environment_name(subject)}}],
        "resources": resources,
        "volumeMounts": mounts,
        "securityContext": CONTAINER_SECURITY,
    }


def _serve_ports() -> list[Document]:
    return [_port("serve", SERVE_PORT), _port("metrics", 8080)]


def _port(name: str, number: int) -> Document:
    return {"name": name, "containerPort": number}


def _resources(cpus: int, memory: str, gpus: int) -> Document:
    wanted: dict[str, str] = {"cpu": str(cpus), "memory": memory}
    if gpus:
        wanted["nvidia.com/gpu"] = str(gpus)
    return {"requests": wanted, "limits": wanted}


def _api_access() -> Document:
    sources: list[Document] = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    return {"name": API_ACCESS, "projected": {"defaultMode": 0o440, "sources": sources}}
