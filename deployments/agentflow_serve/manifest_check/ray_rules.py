"""What KubeRay refuses although the CRD allows it, and what starts but does not do what its writer means.

The rules are those of KubeRay 1.7's own validation; each sentence says what to change.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

from agentflow_serve.manifest_check.report import Found, Manifest, items, mapping
from agentflow_serve.manifests.names import DNS_LABEL, MAX_NAME

UPGRADES = ("NewCluster", "NewClusterWithIncrementalUpgrade", "None")
DURATION = re.compile(r"(?=.*[1-9])(\d+(\.\d+)?(ns|us|ms|s|m|h))+|[1-9]\d*")
TOKEN_SINCE = (2, 52)
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_CLUSTER = "spec.rayClusterConfig"


def check_ray_service(manifest: Manifest, serve_config: dict[str, Any] | None) -> Found:
    """The rules of one RayService; `serve_config` is the one inside, None where it cannot be read."""
    cluster = mapping(manifest.spec.get("rayClusterConfig"))
    return chain(
        _name(manifest),
        _upgrade(manifest, cluster),
        _cluster_wide(cluster),
        _authentication(cluster),
        _redis(manifest, cluster),
        _autoscaler(cluster),
        _groups(cluster),
        _ports(manifest, cluster, serve_config),
    )


def _name(manifest: Manifest) -> Found:
    if len(manifest.name) > MAX_NAME:
        yield (
            "metadata.name",
            f"the name has {len(manifest.name)} characters, and KubeRay allows {MAX_NAME}: shorten it",
        )
    if not DNS_LABEL.fullmatch(manifest.name):
        yield "metadata.name", "the name must be lower-case letters, digits and hyphens, beginning with a letter"
    if manifest.api == "ray.io/v1alpha1":
        yield "apiVersion", "v1alpha1 is deprecated and goes with KubeRay 1.9: write ray.io/v1"
    timeout = mapping(manifest.metadata.get("annotations")).get("ray.io/initializing-timeout")
    if timeout is not None and not DURATION.fullmatch(str(timeout)):
        yield (
            "metadata.annotations.ray.io/initializing-timeout",
            f"'{timeout}' is no duration above zero, such as 30m or 1800",
        )


def _upgrade(manifest: Manifest, cluster: dict[str, Any]) -> Found:
    strategy = mapping(manifest.spec.get("upgradeStrategy"))
    kind = strategy.get("type")
    path = "spec.upgradeStrategy"
    if kind is not None and kind not in UPGRADES:
        yield f"{path}.type", f"'{kind}' is no way to upgrade; KubeRay knows {', '.join(UPGRADES)}"
    if kind != "NewClusterWithIncrementalUpgrade":
        return
    options = strategy.get("clusterUpgradeOptions")
    if not isinstance(options, dict):
        yield path, "an incremental upgrade needs clusterUpgradeOptions"
        return
    if not cluster.get("enableInTreeAutoscaling"):
        yield path, "an incremental upgrade needs enableInTreeAutoscaling: true"
    step, surge = options.get("stepSizePercent"), options.get("maxSurgePercent", 100)
    if not (isinstance(step, int) and isinstance(surge, int) and 0 <= step <= surge <= 100):
        yield f"{path}.clusterUpgradeOptions", "0 <= stepSizePercent <= maxSurgePercent <= 100 must hold"
    if not (isinstance(options.get("intervalSeconds"), int) and options["intervalSeconds"] > 0):
        yield f"{path}.clusterUpgradeOptions.intervalSeconds", "the interval must be above zero"
    if not options.get("gatewayClassName"):
        yield f"{path}.clusterUpgradeOptions.gatewayClassName", "an incremental upgrade needs a gateway class"


def _cluster_wide(cluster: dict[str, Any]) -> Found:
    if "upgradeStrategy" in cluster:
        yield f"{_CLUSTER}.upgradeStrategy", "a RayService upgrades by spec.upgradeStrategy: take this one out"
    if mapping(mapping(mapping(cluster.get("headGroupSpec")).get("headService")).get("metadata")).get("name"):
        yield f"{_CLUSTER}.headGroupSpec.headService", "KubeRay names the Service of the head itself: take the name out"


def _authentication(cluster: dict[str, Any]) -> Found:
    options, path = mapping(cluster.get("authOptions")), f"{_CLUSTER}.authOptions"
    if options.get("mode") != "token":
        yield path, "without `mode: token` whoever reaches port 8265 or 10001 runs code in the cluster: set it"
    elif not options.get("secretName"):
        yield path, "name the Secret of the token (secretName), so that an upgrade keeps it"
    if options.get("enableK8sTokenAuth"):
        yield f"{path}.enableK8sTokenAuth", "KubeRay refuses this for a RayService: take it out"
    version = _version(cluster)
    if options.get("mode") == "token" and version is not None and version < TOKEN_SINCE:
        yield f"{_CLUSTER}.rayVersion", "token authentication needs Ray 2.52 or newer"


def _redis(manifest: Manifest, cluster: dict[str, Any]) -> Found:
    options = cluster.get("gcsFaultToleranceOptions")
    if not isinstance(options, dict):
        return
    path = f"{_CLUSTER}.gcsFaultToleranceOptions"
    if options.get("backend", "redis") == "redis":
        if not options.get("redisAddress"):
            yield path, "name the Redis that keeps Ray's metadata (redisAddress: host:port)"
        if "storage" in options:
            yield f"{path}.storage", "storage is for the backend rocksdb: take it out, or change the backend"
    annotations = {
        **mapping(manifest.metadata.get("annotations")),
        **mapping(mapping(mapping(_head(cluster).get("template")).get("metadata")).get("annotations")),
    }
    if "ray.io/ft-enabled" in annotations:
        yield "metadata.annotations.ray.io/ft-enabled", "the old switch and gcsFaultToleranceOptions exclude each other"
    for name in sorted(_variables(_head(cluster)) & {"REDIS_PASSWORD", "RAY_REDIS_ADDRESS"}):
        yield f"{_CLUSTER}.headGroupSpec", f"{name} is for gcsFaultToleranceOptions to say: take the variable out"
    if "redis-password" in mapping(_head(cluster).get("rayStartParams")):
        yield f"{_CLUSTER}.headGroupSpec.rayStartParams", "redis-password belongs into gcsFaultToleranceOptions"


def _autoscaler(cluster: dict[str, Any]) -> Found:
    options, path = mapping(cluster.get("autoscalerOptions")), f"{_CLUSTER}.autoscalerOptions"
    names = {str(each.get("name")) for each in items(options.get("env"))}
    if "KUBERAY_GEN_AUTOSCALER_START_CMD" in names:
        yield f"{path}.env", "KUBERAY_GEN_AUTOSCALER_START_CMD is KubeRay's own variable: take it out"
    if "version" in options and "RAY_enable_autoscaler_v2" in _variables(_head(cluster)):
        yield f"{path}.version", "the version and the variable RAY_enable_autoscaler_v2 exclude each other"
    if options.get("version") != "v2" or not cluster.get("enableInTreeAutoscaling"):
        return
    for where, group in _all_groups(cluster):
        policy = mapping(mapping(group.get("template")).get("spec")).get("restartPolicy")
        if policy not in (None, "Never"):
            yield f"{where}.template.spec.restartPolicy", f"autoscaler v2 needs Never, not {policy}: leave it out"


def _groups(cluster: dict[str, Any]) -> Found:
    seen: set[str] = set()
    for where, group in _all_groups(cluster):
        params = mapping(group.get("rayStartParams"))
        if group.get("resources") and params.keys() & {"num-cpus", "num-gpus", "memory", "resources"}:
            yield f"{where}.rayStartParams", "resources stand here and in `resources`: keep one of them"
        if "labels" in params:
            yield f"{where}.rayStartParams.labels", "labels are a field of the group: move them to `labels`"
        containers = mapping(mapping(group.get("template")).get("spec")).get("containers")
        names = [str(each.get("name")) for each in items(containers)]
        if any(name.startswith("ray-") for name in names[1:]) and not names[0].startswith("ray-"):
            yield f"{where}.template.spec.containers", "KubeRay starts Ray in the first container: put it there"
        if where.endswith("headGroupSpec"):
            continue
        if (name := str(group.get("groupName"))) in seen:
            yield f"{where}.groupName", f"two groups are called '{name}'"
        seen.add(name)
        yield from _bounds(where, group, bool(cluster.get("enableInTreeAutoscaling")))


def _bounds(where: str, group: dict[str, Any], autoscaling: bool) -> Found:
    low, high = group.get("minReplicas"), group.get("maxReplicas")
    if not autoscaling and (low is None or high is None):
        yield where, "without autoscaling KubeRay wants minReplicas and maxReplicas"
    if isinstance(low, int) and isinstance(high, int) and low > high:
        yield f"{where}.minReplicas", f"minReplicas {low} is above maxReplicas {high}"


def _ports(manifest: Manifest, cluster: dict[str, Any], serve_config: dict[str, Any] | None) -> Found:
    """Clients reach Serve only where three places agree: its own config, the container's port, the Service."""
    containers = mapping(mapping(_head(cluster).get("template")).get("spec")).get("containers")
    head = items(containers)[:1] or [{}]
    named = {
        str(each.get("name")): each.get("containerPort")
        for each in items(head[0].get("ports"))
        if str(each.get("name")).startswith("serve")
    }
    service = items(mapping(mapping(manifest.spec.get("serveService")).get("spec")).get("ports"))
    if not named and not service:
        yield (
            f"{_CLUSTER}.headGroupSpec.template",
            "no port is called `serve`: KubeRay makes the Service of the proxies from it",
        )
    if serve_config is None:
        return
    options = mapping(serve_config.get("http_options"))
    port = options.get("port", 8000)
    listening = {number for number in named.values() if isinstance(number, int)}
    if listening and port not in listening:
        yield "spec.serveConfigV2.http_options.port", f"Serve listens on {port}, and no port `serve` has that number"
    if options.get("host", "127.0.0.1") in LOOPBACK:
        yield "spec.serveConfigV2.http_options.host", "Serve listens on loopback: nobody outside the pod reaches it"


def _head(cluster: dict[str, Any]) -> dict[str, Any]:
    return mapping(cluster.get("headGroupSpec"))


def _all_groups(cluster: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield f"{_CLUSTER}.headGroupSpec", _head(cluster)
    for number, group in enumerate(items(cluster.get("workerGroupSpecs"))):
        yield f"{_CLUSTER}.workerGroupSpecs.{number}", group


def _variables(group: dict[str, Any]) -> set[str]:
    containers = items(mapping(mapping(group.get("template")).get("spec")).get("containers"))
    return {str(each.get("name")) for container in containers for each in items(container.get("env"))}


def _version(cluster: dict[str, Any]) -> tuple[int, ...] | None:
    found = re.match(r"(\d+)\.(\d+)", str(cluster.get("rayVersion", "")))
    return (int(found[1]), int(found[2])) if found else None
