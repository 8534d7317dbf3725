"""What is deployed: a flow and all that its manifests must know of it, read from its files once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agentflow.feature_use import feature_nodes
from agentflow.placement import stages
from agentflow_serve.args import AppArgs, parse_args
from agentflow_serve.deployment_options import every_deployment
from agentflow_serve.errors import ManifestsInvalid
from agentflow_serve.inputs import AppInputs, read_inputs
from agentflow_serve.manifests.egress import Destination, destinations
from agentflow_serve.manifests.names import namespace_name, service_name
from agentflow_serve.manifests.settings import ManifestSettings
from agentflow_serve.manifests.sizing import WorkerGroup, worker_groups, worker_size
from agentflow_serve.serve_config import app_args, check_code
from agentflow_serve.store_needs import has_budgets, keeps_state, why_asked
from flow_runtime.hub_models import providers_of
from runtime_core.stores.url import is_postgres

POD_STORE = "sqlite:////var/lib/agentflow/agentflow.sqlite"
"""A store that ends with its pod, for who names none."""
PREDICTORS_AT_LEAST = 2


@dataclass(frozen=True, slots=True)
class Subject:
    """`args` are the builder's, with flow and llmhub.yaml in them; `deployments` their options by name.

    `keys` names the environment variables that a Secret must fill; `warnings` are for whoever asked.
    """

    name: str
    namespace: str
    flow: str
    fingerprint: str
    args: Mapping[str, Any]
    deployments: Mapping[str, Mapping[str, Any]]
    deadline_s: float
    keys: tuple[str, ...]
    destinations: tuple[Destination, ...]
    workers: tuple[WorkerGroup, ...]
    target_rps: int | None
    warnings: tuple[str, ...]

    @property
    def answered_within_s(self) -> int:
        """When whoever stands before the predictor may give up: a moment after the predictor itself does."""
        return int(self.deadline_s) + 5


def subject_of(flow: Path, llmhub: Path | None, settings: ManifestSettings) -> Subject:
    """Read a flow and its models. Raises FlowInvalid, ConfigError, AppInvalid and the like, and ManifestsInvalid."""
    wanted = settings.model_dump(include={"placement", "feature_store", "embedder", "budgets", "policy"})
    if settings.code != "inline":
        wanted["code"] = settings.code
    if settings.allow_hosts:
        wanted["allow_hosts"] = list(settings.allow_hosts)
    if settings.auth is not None:
        wanted["auth"] = settings.auth
    if settings.open_to_network:
        wanted["open_to_network"] = True
    document = app_args(flow, llmhub, {**wanted, "store": settings.store or POD_STORE})
    document["flow"].pop("tests", None)
    args = parse_args(document)
    inputs = read_inputs(args)
    check_code(inputs, args)
    return _subject(document, args, inputs, settings)


def _subject(document: Mapping[str, Any], args: AppArgs, inputs: AppInputs, settings: ManifestSettings) -> Subject:
    plan = inputs.plan
    kserve = plan.flow.deployment.kserve
    deployments = _with_twins(
        plan.name,
        every_deployment(plan, stages(plan, args.placement), deadline_s=args.limits.deadline_s, sim=inputs.needs_sim),
    )
    _check_callers(args)
    _check_store(args, inputs)
    cpus, memory = worker_size(
        kserve.resources if kserve else None, cpus=settings.worker_cpus, memory=settings.worker_memory
    )
    return Subject(
        name=service_name(plan.name, wanted=settings.name or (kserve.service_name if kserve else None)),
        namespace=namespace_name(settings.namespace or (kserve.namespace if kserve else None)),
        flow=plan.name,
        fingerprint=plan.fingerprint,
        args=document,
        deployments=deployments,
        deadline_s=args.limits.deadline_s,
        keys=_keys(args, inputs),
        destinations=destinations(
            plan.flow,
            inputs.llmhub,
            embedder=args.embedder,
            stores=[url for url in (args.store,) if is_postgres(url)],
            entries=(*args.allow_hosts, *settings.egress),
        ),
        workers=worker_groups(deployments, cpus=cpus, memory=memory, max_workers=settings.max_workers),
        target_rps=kserve.target_rps if kserve else None,
        warnings=tuple(_warnings(args, inputs, settings)),
    )


def _with_twins(predictor: str, deployments: Mapping[str, dict[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The predictor on two machines at least: while one goes, the other answers."""
    options = dict(deployments[predictor])
    if "num_replicas" in options:
        options["num_replicas"] = max(options["num_replicas"], PREDICTORS_AT_LEAST)
    else:
        scaling = options["autoscaling_config"]
        low = max(scaling["min_replicas"], PREDICTORS_AT_LEAST)
        options["autoscaling_config"] = {
            **scaling,
            "min_replicas": low,
            "max_replicas": max(low, scaling["max_replicas"]),
        }
    return {**deployments, predictor: options}


def _check_callers(args: AppArgs) -> None:
    if args.auth == "none" and not args.open_to_network:
        raise ManifestsInvalid(
            "pods listen on a network: say --auth keys, with a --store that all pods share, "
            "or --open-to-network if whoever reaches them may call"
        )
    if args.auth == "keys" and args.store.startswith("sqlite:"):
        raise ManifestsInvalid(
            "the API keys of --auth keys are in the run store, which all pods must share: "
            "name one with --store postgresql://user@host/database"
        )


def _check_store(args: AppArgs, inputs: AppInputs) -> None:
    if urlsplit(args.store).password:
        raise ManifestsInvalid("--store holds a password: leave it out, and put PGPASSWORD into the Secret of the keys")
    why = _why_shared(args, inputs)
    if why and not is_postgres(args.store):
        raise ManifestsInvalid(
            f"{why}: all pods must share the run store, so name one with --store postgresql://user@host/database"
        )


def _why_shared(args: AppArgs, inputs: AppInputs) -> str | None:
    flow = inputs.plan.flow
    if keeps_state(flow):
        return "the flow keeps state in the run store (`backend: store`)"
    if args.budgets is not None:
        return "--budgets are counted in the run store"
    if has_budgets(flow):
        return "the flow's budgets are counted in the run store"
    return why_asked(flow, inputs.policy)


def _keys(args: AppArgs, inputs: AppInputs) -> tuple[str, ...]:
    names: set[str] = set()
    if inputs.llmhub is not None:
        used = providers_of(inputs.plan.flow, inputs.llmhub, args.embedder)
        providers = [inputs.llmhub.providers[name] for name in used if name in inputs.llmhub.providers]
        names |= {provider.env_key for provider in providers if provider.env_key}
    if (inputs.feature_store or "").startswith("hopsworks:"):
        names |= {"HOPSWORKS_API_KEY", "HOPSWORKS_HOST"}
    if is_postgres(args.store):
        names.add("PGPASSWORD")
    return tuple(sorted(names))


def _warnings(args: AppArgs, inputs: AppInputs, settings: ManifestSettings) -> list[str]:
    found: list[str] = []
    if settings.redis is None:
        found.append(
            "only overlays/dev brings a Redis for Ray's metadata; name yours for production with --redis HOST:PORT"
        )
    if settings.image is None:
        found.append("no image is named; `agentflow package` makes one, --image REGISTRY/NAME@sha256:... names it")
    kserve = inputs.plan.flow.deployment.kserve
    if kserve and kserve.resources and kserve.resources.gpu:
        found.append(
            "deployment.kserve.resources.gpu gives no GPU to anybody; a node asks with runtime.resources.num_gpus"
        )
    if args.store == POD_STORE:
        found.append("the log of model calls ends with its pod; --store postgresql://user@host/database keeps it")
    if (inputs.feature_store or "").startswith("local:") and feature_nodes(inputs.plan.flow.nodes.values()):
        found.append("the feature store is a folder: it must be in the image, and pods do not share what they write")
    if inputs.needs_sim:
        found.append("the models are simulated; name a llmhub.yaml with real ones before people rely on the answers")
    return found
