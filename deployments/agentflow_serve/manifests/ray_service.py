"""The RayService: KubeRay runs the cluster, deploys the app, and moves it to a new cluster when the pods change."""

from __future__ import annotations

from agentflow_serve.manifests.common import (
    CONTAINER_SECURITY,
    FINGERPRINT,
    SERVE_PORT,
    Document,
    document,
    labels,
    serve_service,
)
from agentflow_serve.manifests.config import auth_name, redis_secret_name
from agentflow_serve.manifests.pods import autoscaler_mounts, drain_s, head_template, worker_template
from agentflow_serve.manifests.serve_app import serve_document
from agentflow_serve.manifests.settings import ManifestSettings
from agentflow_serve.manifests.sizing import WorkerGroup
from agentflow_serve.manifests.subject import Subject
from agentflow_serve.manifests.yaml_text import yaml_of


def ray_service(subject: Subject, settings: ManifestSettings) -> Document:
    """The service of one flow; its ingress deployment is the KServe predictor."""
    port = {"name": "serve", "port": SERVE_PORT, "targetPort": SERVE_PORT, "appProtocol": "http"}
    spec = {
        "upgradeStrategy": {"type": "NewCluster"},
        "rayClusterDeletionDelaySeconds": max(60, drain_s(subject)),
        "excludeHeadPodFromServeSvc": True,
        "serveService": {
            "metadata": {"name": serve_service(subject), "labels": labels(subject)},
            "spec": {"type": "ClusterIP", "ports": [port]},
        },
        "serveConfigV2": yaml_of(serve_document(subject, settings)),
        "rayClusterConfig": _cluster(subject, settings),
    }
    annotations = {"ray.io/initializing-timeout": "30m", FINGERPRINT: subject.fingerprint}
    return document(subject, "ray.io/v1", "RayService", subject.name, annotations=annotations, spec=spec)


def _cluster(subject: Subject, settings: ManifestSettings) -> Document:
    return {
        "rayVersion": settings.ray_version,
        "authOptions": {"mode": "token", "secretName": auth_name(subject)},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "idleTimeoutSeconds": 300,
            "upscalingMode": "Default",
            "resources": {"requests": {"cpu": "200m", "memory": "512Mi"}, "limits": {"cpu": "500m", "memory": "512Mi"}},
            "securityContext": CONTAINER_SECURITY,
            "volumeMounts": autoscaler_mounts(),
        },
        "gcsFaultToleranceOptions": {
            "redisAddress": settings.redis or f"{redis_name(subject)}:6379",
            "redisPassword": {"valueFrom": {"secretKeyRef": {"name": redis_secret_name(subject), "key": "password"}}},
        },
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
            "template": head_template(subject, settings),
        },
        "workerGroupSpecs": [_group(subject, settings, group) for group in subject.workers],
    }


def redis_name(subject: Subject) -> str:
    return f"{subject.name}-redis"


def _group(subject: Subject, settings: ManifestSettings, group: WorkerGroup) -> Document:
    return {
        "groupName": group.name,
        "replicas": group.min_replicas,
        "minReplicas": group.min_replicas,
        "maxReplicas": group.max_replicas,
        "rayStartParams": {},
        "template": worker_template(subject, settings, group),
    }
