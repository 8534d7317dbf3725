"""All files of a set of manifests: which document stands in which file."""

from __future__ import annotations

from agentflow_serve.manifests import kustomize
from agentflow_serve.manifests.cluster_objects import development_redis, disruption_budget, namespace
from agentflow_serve.manifests.config import environment, flow_config, secrets
from agentflow_serve.manifests.inference_service import inference_service
from agentflow_serve.manifests.monitoring import pod_monitor, prometheus_rule
from agentflow_serve.manifests.network import network_policies
from agentflow_serve.manifests.ray_service import ray_service
from agentflow_serve.manifests.route import http_route
from agentflow_serve.manifests.settings import ManifestSettings
from agentflow_serve.manifests.subject import Subject
from agentflow_serve.manifests.yaml_text import yaml_of

SECRETS = "secrets.template.yaml"
PATCH = "ray_service.patch.yaml"


def bundle(subject: Subject, settings: ManifestSettings) -> dict[str, str]:
    """The text of every file by its path in the folder, the same for the same input."""
    base = {
        "namespace.yaml": yaml_of(namespace(subject)),
        "config.yaml": yaml_of(environment(subject), *([flow_config(subject)] if settings.config_map else [])),
        "ray_service.yaml": yaml_of(ray_service(subject, settings)),
        "network_policies.yaml": yaml_of(*network_policies(subject, settings)),
    }
    monitoring = {
        "pod_monitor.yaml": yaml_of(pod_monitor(subject)),
        "prometheus_rule.yaml": yaml_of(prometheus_rule(subject)),
    }
    parts = {"monitoring": monitoring, "route": {"http_route.yaml": yaml_of(http_route(subject, settings))}}
    if settings.inference_service is not None:
        service = inference_service(subject, settings.inference_service)
        parts["gateway"] = {"inference_service.yaml": yaml_of(service)}
    return {
        SECRETS: _filled_first(yaml_of(*secrets(subject))),
        **_folder("base", base, kustomize.kustomization(list(base))),
        **{
            path: text
            for name, files in parts.items()
            for path, text in _folder(f"components/{name}", files, kustomize.component(list(files))).items()
        },
        **_development(subject, settings),
        **_production(subject, settings, [f"../../components/{name}" for name in parts]),
    }


def _folder(folder: str, files: dict[str, str], kustomization: dict[str, object]) -> dict[str, str]:
    named = {f"{folder}/{name}": text for name, text in files.items()}
    return {**named, f"{folder}/kustomization.yaml": yaml_of(kustomization)}


def _development(subject: Subject, settings: ManifestSettings) -> dict[str, str]:
    files = {"redis.yaml": yaml_of(*development_redis(subject))}
    overlay = kustomize.kustomization(
        ["../../base", *files],
        images=kustomize.images(subject, settings),
        patches=kustomize.patched(subject, PATCH),
    )
    files[PATCH] = yaml_of(kustomize.development_patch(subject))
    return _folder("overlays/dev", files, overlay)


def _production(subject: Subject, settings: ManifestSettings, components: list[str]) -> dict[str, str]:
    files = {"disruption_budget.yaml": yaml_of(disruption_budget(subject))}
    overlay = kustomize.kustomization(
        ["../../base", *files], components=components, images=kustomize.images(subject, settings)
    )
    return _folder("overlays/prod", files, overlay)


def _filled_first(text: str) -> str:
    return (
        "# Fill these in and apply them once, or let a secret operator make Secrets of the same names.\n"
        "# No kustomization lists this file, so that nobody overwrites what is there. Do not commit it filled in.\n"
    ) + text
