"""How many workers the replicas of an app need, at rest and at most."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agentflow.ir import KServeResources
from agentflow_serve.errors import ManifestsInvalid

MIB = 1024**2
REPLICA_BYTES = 256 * MIB
"""What is planned for a replica that reserves nothing: Ray, Serve and a model client, with room for requests."""
RAY_SHARE = 0.4
"""Of a worker's memory: the object store, the raylet and its agents."""
WORKERS_AT_LEAST = 2
"""With one, the service is gone whenever its machine is."""
DEFAULT_CPUS, DEFAULT_MEMORY = 2, "4Gi"
_UNITS = {"Mi": MIB, "Gi": 1024**3}


@dataclass(frozen=True, slots=True)
class WorkerGroup:
    """Workers of one kind: `cpus`, `gpus` and `memory` of each, and how many of them."""

    name: str
    cpus: int
    gpus: int
    memory: str
    min_replicas: int
    max_replicas: int


def worker_groups(
    deployments: Mapping[str, Mapping[str, Any]], *, cpus: int, memory: str, max_workers: int | None
) -> tuple[WorkerGroup, ...]:
    """One group for the deployments without a GPU, and one for those with, if there are any."""
    plain = [each for each in deployments.values() if not _actor(each).get("num_gpus")]
    on_gpu = [each for each in deployments.values() if _actor(each).get("num_gpus")]
    groups = [_group("cpu", plain, cpus=cpus, gpus=0, memory=memory, at_least=WORKERS_AT_LEAST, at_most=max_workers)]
    if on_gpu:
        gpus = max(math.ceil(_actor(each)["num_gpus"]) for each in on_gpu)
        groups.append(_group("gpu", on_gpu, cpus=cpus, gpus=gpus, memory=memory, at_least=0, at_most=max_workers))
    return tuple(groups)


def worker_size(asked: KServeResources | None, *, cpus: int | None, memory: str | None) -> tuple[int, str]:
    """The size of a worker: as the settings say, else as the flow does. Raises ManifestsInvalid."""
    where = "deployment.kserve.resources"
    if cpus is None and asked is not None and asked.cpu is not None:
        if not (found := re.fullmatch(r"([1-9]\d*)(m?)", asked.cpu)):
            raise ManifestsInvalid(f"{where}.cpu '{asked.cpu}' is no number of CPUs, such as 2 or 500m")
        cpus = math.ceil(int(found[1]) / 1000) if found[2] else int(found[1])
    if memory is None and asked is not None and asked.memory is not None:
        if not re.fullmatch(r"[1-9]\d*(Mi|Gi)", asked.memory):
            raise ManifestsInvalid(f"{where}.memory '{asked.memory}' must be in Mi or Gi, such as 4Gi")
        memory = asked.memory
    return cpus or DEFAULT_CPUS, memory or DEFAULT_MEMORY


def memory_of(quantity: str) -> int:
    """Bytes of `512Mi` or `4Gi`."""
    return int(quantity[:-2]) * _UNITS[quantity[-2:]]


def _group(
    name: str,
    deployments: Iterable[Mapping[str, Any]],
    *,
    cpus: int,
    gpus: int,
    memory: str,
    at_least: int,
    at_most: int | None,
) -> WorkerGroup:
    made = list(deployments)
    low = max(at_least, _workers(made, 0, cpus=cpus, gpus=gpus, memory=memory))
    high = max(low, _workers(made, 1, cpus=cpus, gpus=gpus, memory=memory))
    # one more than at most: while replicas are replaced, old and new ones run side by side
    return WorkerGroup(name, cpus, gpus, memory, min(low, at_most or low), at_most or high + 1)


def _workers(deployments: list[Mapping[str, Any]], end: int, *, cpus: int, gpus: int, memory: str) -> int:
    room = memory_of(memory) * (1 - RAY_SHARE)
    asked = [(bounds(each)[end], _actor(each)) for each in deployments]
    needs = [
        sum(number * actor["num_cpus"] for number, actor in asked) / cpus,
        sum(number * max(actor.get("memory", 0), REPLICA_BYTES) for number, actor in asked) / room,
    ]
    if gpus:
        needs.append(sum(number * actor["num_gpus"] for number, actor in asked) / gpus)
    return math.ceil(round(max(needs), 6))


def bounds(options: Mapping[str, Any]) -> tuple[int, int]:
    """The least and the most replicas of a deployment."""
    scaling = options.get("autoscaling_config")
    if scaling is None:
        return options["num_replicas"], options["num_replicas"]
    return scaling["min_replicas"], scaling["max_replicas"]


def _actor(options: Mapping[str, Any]) -> Mapping[str, Any]:
    return options["ray_actor_options"]
