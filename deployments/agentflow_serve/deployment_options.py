"""What each Serve deployment of an app is given: the options that the builder sets, and that a manifest shows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from agentflow.placement import Replicas, Stage, predictor_replicas
from agentflow.planning import Plan
from llmhub_runtime.names import SIM

HEALTH_CHECK = {"health_check_period_s": 1.0, "health_check_timeout_s": 10.0}
"""With these a killed replica is back in four to six seconds; Serve's defaults take eleven to fourteen."""

QUEUE_AT_LEAST = 1024
"""Several of the largest batches that one request may hold: a queue that is shorter refuses what can never fit."""
QUEUE_PER_SLOT = 16
"""How many calls may wait for each one that runs before a deployment says that it is overloaded."""
MAX_SURGE_PERCENT = 25
"""A quarter more while replicas are replaced, one at least: a new one must answer before an old one goes."""
SIM_REPLICAS = Replicas(concurrency=1024)
SIM_DRAIN_S = 1.0


def sim_name(flow: str) -> str:
    """The deployment of a flow's simulated model."""
    return f"{flow}.{SIM}"


def options_of(replicas: Replicas, *, drain_s: float) -> dict[str, Any]:
    """The options of one deployment, by the names that `serve.deployment` and serve configs share."""
    actor: dict[str, Any] = {"num_cpus": replicas.num_cpus, "num_gpus": replicas.num_gpus}
    if replicas.memory:
        actor["memory"] = replicas.memory
    return {
        **_scaling(replicas),
        "max_ongoing_requests": replicas.concurrency,
        "max_queued_requests": max(QUEUE_AT_LEAST, replicas.concurrency * QUEUE_PER_SLOT),
        "graceful_shutdown_timeout_s": drain_s + 5,
        **HEALTH_CHECK,
        "max_surge_percent": MAX_SURGE_PERCENT,
        "ray_actor_options": actor,
    }


def every_deployment(plan: Plan, placed: Iterable[Stage], *, deadline_s: float, sim: bool) -> dict[str, dict[str, Any]]:
    """The options of all deployments of an app by name: the predictor, the nodes, the simulated model."""
    found = {plan.name: options_of(predictor_replicas(plan), drain_s=deadline_s)}
    for stage in placed:
        if stage.deployment is not None:
            drain_s = node_drain_s(plan, stage.nodes[0], deadline_s)
            found[stage.deployment] = options_of(stage.replicas, drain_s=drain_s)
    if sim:
        found[sim_name(plan.name)] = options_of(SIM_REPLICAS, drain_s=SIM_DRAIN_S)
    return found


def node_drain_s(plan: Plan, node: str, deadline_s: float) -> float:
    """How long a replica of a node may go on with its calls when it is to end."""
    return min(_longest_s(plan, node), deadline_s)


def _longest_s(plan: Plan, node: str) -> float:
    """The longest that a call of a node can take: every attempt and pause, and the fallback model, round by round."""
    settings, spec = plan.settings[node], plan.node(node)
    if spec.for_each is not None:
        return math.inf
    attempts = settings.attempts + (1 if spec.prompt and spec.prompt.fallback else 0)
    pause_s = settings.backoff_s if settings.backoff == "constant" else settings.max_backoff_s or settings.backoff_s
    turn_s = attempts * settings.timeout_s + (settings.attempts - 1) * pause_s
    return turn_s * (spec.loop.max_rounds if spec.loop else 1)


def _scaling(replicas: Replicas) -> dict[str, Any]:
    if replicas.max_replicas <= replicas.min_replicas:
        return {"num_replicas": replicas.min_replicas}
    return {
        "autoscaling_config": {
            "min_replicas": replicas.min_replicas,
            "max_replicas": replicas.max_replicas,
            "target_ongoing_requests": replicas.target_ongoing_requests or max(1, replicas.concurrency // 2),
        }
    }
