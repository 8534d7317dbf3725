"""What only shows when documents are seen together: names that clash, and references that lead nowhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from agentflow_serve.manifest_check.report import Manifest, Problem, items, mapping, problem


def check_together(manifests: Sequence[Manifest]) -> Iterator[Problem]:
    yield from _twice(manifests)
    yield from _service_names(manifests)
    yield from _references(manifests)
    yield from _token(manifests)
    yield from _budgets(manifests)


def _twice(manifests: Sequence[Manifest]) -> Iterator[Problem]:
    seen: dict[tuple[Any, ...], str] = {}
    for each in manifests:
        key = (each.api.partition("/")[0], each.kind, each.metadata.get("namespace"), each.name)
        if key in seen:
            yield problem(
                each, "metadata.name", f"{seen[key]} has a {each.kind} of this name too: one would replace the other"
            )
        seen.setdefault(key, each.file)


def _service_names(manifests: Sequence[Manifest]) -> Iterator[Problem]:
    made: dict[str, Manifest] = {}
    for each in manifests:
        if each.kind == "RayService":
            made[_serve_service(each)] = each
    for each in manifests:
        if each.kind == "InferenceService" and (taken := made.get(f"{each.name}-predictor")) is not None:
            yield problem(
                taken,
                "spec.serveService.metadata.name",
                f"the InferenceService '{each.name}' makes a Service {each.name}-predictor too: rename one of them",
            )
    if not made:
        return
    services = {each.name for each in manifests if each.kind == "Service"} | made.keys()
    for each in manifests:
        if each.kind != "HTTPRoute":
            continue
        for number, rule in enumerate(items(each.spec.get("rules"))):
            for backend in items(rule.get("backendRefs")):
                if backend.get("name") not in services and backend.get("namespace") is None:
                    yield problem(
                        each,
                        f"spec.rules.{number}.backendRefs",
                        f"nothing here makes a Service '{backend.get('name')}'; there is {', '.join(sorted(services))}",
                    )


def _serve_service(manifest: Manifest) -> str:
    name = mapping(mapping(manifest.spec.get("serveService")).get("metadata")).get("name")
    return str(name) if name else f"{manifest.name}-serve-svc"


def _references(manifests: Sequence[Manifest]) -> Iterator[Problem]:
    """ConfigMaps are part of the set; Secrets may come from elsewhere."""
    known = {each.name for each in manifests if each.kind == "ConfigMap"}
    for each in manifests:
        if each.kind != "RayService":
            continue
        for path, pod in _pods(each):
            for name in sorted(_config_maps(pod) - known - {"kube-root-ca.crt"}):
                yield problem(each, path, f"the pods use a ConfigMap '{name}', and none here is called that")


def _pods(manifest: Manifest) -> Iterator[tuple[str, dict[str, Any]]]:
    cluster = mapping(manifest.spec.get("rayClusterConfig"))
    groups = [("headGroupSpec", mapping(cluster.get("headGroupSpec")))]
    groups += [
        (f"workerGroupSpecs.{number}", group) for number, group in enumerate(items(cluster.get("workerGroupSpecs")))
    ]
    for path, group in groups:
        yield f"spec.rayClusterConfig.{path}.template", mapping(mapping(group.get("template")).get("spec"))


def _config_maps(pod: dict[str, Any]) -> set[str]:
    found = {mapping(volume.get("configMap")).get("name") for volume in items(pod.get("volumes"))}
    for container in items(pod.get("containers")):
        found |= {
            ref.get("name")
            for source in items(container.get("envFrom"))
            if not (ref := mapping(source.get("configMapRef"))).get("optional")
        }
    return {name for name in found if isinstance(name, str)}


def _token(manifests: Sequence[Manifest]) -> Iterator[Problem]:
    secrets = {each.name: each for each in manifests if each.kind == "Secret"}
    for each in manifests:
        if each.kind != "RayService":
            continue
        options = mapping(mapping(each.spec.get("rayClusterConfig")).get("authOptions"))
        secret = secrets.get(str(options.get("secretName")))
        if secret is None:
            continue
        keys = {**mapping(secret.data.get("data")), **mapping(secret.data.get("stringData"))}
        if "auth_token" not in keys:
            yield problem(secret, "stringData", "KubeRay reads the key `auth_token` of this Secret: name it so")


def _budgets(manifests: Sequence[Manifest]) -> Iterator[Problem]:
    """Ray's pods belong to an object without a scale, of which no share can be counted."""
    labelled = [
        mapping(mapping(mapping(group.get("template")).get("metadata")).get("labels"))
        for each in manifests
        if each.kind == "RayService"
        for group in items(mapping(each.spec.get("rayClusterConfig")).get("workerGroupSpecs"))
    ]
    for each in manifests:
        if each.kind != "PodDisruptionBudget":
            continue
        wanted = mapping(mapping(each.spec.get("selector")).get("matchLabels"))
        if not any(wanted.items() <= found.items() for found in labelled):
            continue
        if "maxUnavailable" in each.spec or not isinstance(each.spec.get("minAvailable"), int):
            yield problem(each, "spec", "Ray's pods have no scale, so only `minAvailable` with a number works")
