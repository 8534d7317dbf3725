"""The base and the overlays: what is the same everywhere, and what development and production add."""

from __future__ import annotations

from typing import Any

from agentflow_serve.manifests.common import Document
from agentflow_serve.manifests.pods import image_of
from agentflow_serve.manifests.ray_service import redis_name
from agentflow_serve.manifests.settings import ManifestSettings
from agentflow_serve.manifests.subject import Subject

API = "kustomize.config.k8s.io/v1beta1"


def kustomization(resources: list[str], *, components: list[str] | None = None, **more: Any) -> Document:
    made: Document = {"apiVersion": API, "kind": "Kustomization", "resources": resources}
    if components:
        made["components"] = components
    return made | more


def component(resources: list[str]) -> Document:
    return {"apiVersion": "kustomize.config.k8s.io/v1alpha1", "kind": "Component", "resources": resources}


def images(subject: Subject, settings: ManifestSettings) -> list[Document]:
    """Which image the name in the base stands for. A digest names one image for ever, a tag whatever is there."""
    name = image_of(subject)
    if settings.image is None:
        return [{"name": name, "newTag": "dev"}]
    place, _, digest = settings.image.partition("@")
    if digest:
        return [{"name": name, "newName": place, "digest": digest}]
    path, slash, last = place.rpartition("/")
    last, _, tag = last.partition(":")
    return [{"name": name, "newName": f"{path}{slash}{last}", "newTag": tag or "latest"}]


def development_patch(subject: Subject) -> list[Document]:
    """Fewer workers, and a Redis of its own. Single fields: a merge would replace the whole list of worker groups."""
    redis = f"{redis_name(subject)}:6379"
    options = "/spec/rayClusterConfig/gcsFaultToleranceOptions"
    patches: list[Document] = [{"op": "replace", "path": f"{options}/redisAddress", "value": redis}]
    for number, group in enumerate(subject.workers):
        where = f"/spec/rayClusterConfig/workerGroupSpecs/{number}"
        low, high = min(1, group.min_replicas), max(1, min(3, group.max_replicas))
        patches += [
            {"op": "replace", "path": f"{where}/replicas", "value": low},
            {"op": "replace", "path": f"{where}/minReplicas", "value": low},
            {"op": "replace", "path": f"{where}/maxReplicas", "value": high},
        ]
    return patches


def patched(subject: Subject, file: str) -> list[Document]:
    target = {"group": "ray.io", "version": "v1", "kind": "RayService", "name": subject.name}
    return [{"target": target, "path": file}]
