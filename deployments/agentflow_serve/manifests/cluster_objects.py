"""The small objects around the service: its namespace, what protects it in an eviction, and a Redis to develop with."""

from __future__ import annotations

from agentflow_serve.manifests.common import (
    CONTAINER_SECURITY,
    POD_SECURITY,
    Document,
    document,
    pod_labels,
)
from agentflow_serve.manifests.config import redis_secret_name
from agentflow_serve.manifests.ray_service import redis_name
from agentflow_serve.manifests.sizing import WORKERS_AT_LEAST
from agentflow_serve.manifests.subject import Subject

REDIS_IMAGE = "redis:7.4-alpine"
REDIS_USER_ID = 999


def namespace(subject: Subject) -> Document:
    made = document(subject, "v1", "Namespace", subject.namespace)
    made["metadata"]["labels"] |= {
        "pod-security.kubernetes.io/enforce": "baseline",
        "pod-security.kubernetes.io/warn": "restricted",
    }
    return made


def disruption_budget(subject: Subject) -> Document:
    """A number, because Kubernetes cannot count a percentage of pods whose owner has no scale."""
    workers = max(1, subject.workers[0].min_replicas - 1, WORKERS_AT_LEAST - 1)
    spec = {"minAvailable": workers, "selector": {"matchLabels": pod_labels(subject, "worker")}}
    return document(subject, "policy/v1", "PodDisruptionBudget", f"{subject.name}-workers", spec=spec)


def development_redis(subject: Subject) -> list[Document]:
    """Ray's metadata in a Redis without a disk: enough to try a restart of the head, not for production."""
    name, matched = redis_name(subject), pod_labels(subject, "redis")
    password = {"secretKeyRef": {"name": redis_secret_name(subject), "key": "password"}}
    wanted = {"cpu": "200m", "memory": "256Mi"}
    container = {
        "name": "redis",
        "image": REDIS_IMAGE,
        "command": ["sh", "-c", 'exec redis-server --requirepass "$REDIS_PASSWORD" --save "" --appendonly no'],
        "env": [{"name": "REDIS_PASSWORD", "valueFrom": password}],
        "ports": [{"name": "redis", "containerPort": 6379}],
        "readinessProbe": {"tcpSocket": {"port": 6379}},
        "resources": {"requests": wanted, "limits": wanted},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "securityContext": {**CONTAINER_SECURITY, "runAsUser": REDIS_USER_ID, "runAsGroup": REDIS_USER_ID},
    }
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {**POD_SECURITY, "runAsUser": REDIS_USER_ID, "runAsGroup": REDIS_USER_ID},
        "containers": [container],
        "volumes": [{"name": "data", "emptyDir": {}}],
    }
    template = {"metadata": {"labels": matched}, "spec": pod}
    deployment = {"replicas": 1, "selector": {"matchLabels": matched}, "template": template}
    service = {"selector": matched, "ports": [{"name": "redis", "port": 6379, "targetPort": 6379}]}
    return [
        document(subject, "apps/v1", "Deployment", name, spec=deployment),
        document(subject, "v1", "Service", name, spec=service),
    ]
