"""The serve config inside a RayService, strictly: Serve itself drops keys that it does not know."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from agentflow.errors import FlowError
from agentflow_serve.auth.exposure import exposure_problem
from agentflow_serve.errors import ServingError
from agentflow_serve.manifest_check.report import Found, mapping
from agentflow_serve.ports import DEFAULT_HOST
from agentflow_serve.serve_config import IMPORT_PATH
from runtime_core.errors import AgentflowError


def check_serve_config(document: dict[str, Any]) -> Found:
    """What is wrong with a serve config, each with its path inside."""
    unknown = list(_unknown(document))
    yield from unknown
    if not unknown:
        yield from _invalid(document)
    host = str(mapping(document.get("http_options")).get("host") or DEFAULT_HOST)
    for number, app in enumerate(document["applications"]):
        if mapping(app).get("import_path") == IMPORT_PATH:
            yield from _our_app(app, f"applications.{number}", host)


def _unknown(document: dict[str, Any]) -> Found:
    from ray.serve.schema import ServeDeploySchema

    yield from _keys(ServeDeploySchema, document, "")


def _keys(model: type[BaseModel], data: Mapping[str, Any], path: str) -> Found:
    known = {name for field, info in model.model_fields.items() for name in (field, info.alias) if name}
    for key, value in data.items():
        place = f"{path}{key}"
        if key not in known:
            close = get_close_matches(str(key), known, n=1)
            hint = f" (did you mean '{close[0]}'?)" if close else ""
            yield place, f"Serve knows no '{key}' here, and would drop it without a word{hint}"
            continue
        inner = _nested().get(key)
        for number, item in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if inner is not None and isinstance(item, dict):
                yield from _keys(inner, item, f"{place}." if number is None else f"{place}.{number}.")


def _nested() -> dict[str, type[BaseModel]]:
    """The model behind each key that has one; Serve keeps some of them as plain mappings."""
    from ray.serve import config, schema

    return {
        "applications": schema.ServeApplicationSchema,
        "deployments": schema.DeploymentSchema,
        "http_options": schema.HTTPOptionsSchema,
        "grpc_options": schema.gRPCOptionsSchema,
        "logging_config": schema.LoggingConfig,
        "autoscaling_config": config.AutoscalingConfig,
        "request_router_config": config.RequestRouterConfig,
        "ray_actor_options": schema.RayActorOptionsSchema,
    }


def _invalid(document: dict[str, Any]) -> Found:
    from ray.serve.config import AutoscalingConfig
    from ray.serve.schema import ServeDeploySchema

    try:
        ServeDeploySchema.model_validate(document)
    except ValidationError as exc:
        yield from _problems(exc, "")
    for number, app in enumerate(document["applications"]):
        for index, deployment in enumerate(app.get("deployments") or ()):
            scaling = mapping(deployment).get("autoscaling_config")
            if isinstance(scaling, dict):
                path = f"applications.{number}.deployments.{index}.autoscaling_config"
                try:
                    AutoscalingConfig.model_validate(scaling)
                except ValidationError as exc:
                    yield from _problems(exc, f"{path}.")


def _problems(error: ValidationError, prefix: str) -> Iterator[tuple[str, str]]:
    for each in error.errors():
        message = each["msg"].removeprefix("Value error, ")
        yield prefix + ".".join(map(str, each["loc"])), f"Serve refuses this: {' '.join(message.split())}"


def _our_app(app: dict[str, Any], path: str, host: str) -> Found:
    """The arguments of our builder, who may call, the flow, and that every deployment named is one of the flow's."""
    from agentflow_serve.args import parse_args

    try:
        args = parse_args(mapping(app.get("args")))
        names = _deployment_names(args)
    except (FlowError, AgentflowError, ServingError) as exc:
        yield f"{path}.args", str(exc)
        return
    if problem := exposure_problem(host, auth=args.auth, open_to_network=args.open_to_network):
        yield f"{path}.args.auth", problem
    if names is None:
        return
    for number, deployment in enumerate(app.get("deployments") or ()):
        name = mapping(deployment).get("name")
        if name not in names:
            close = get_close_matches(str(name), names, n=1)
            hint = f" (did you mean '{close[0]}'?)" if close else ""
            yield f"{path}.deployments.{number}.name", f"the flow has no deployment '{name}'{hint}"


def _deployment_names(args: Any) -> set[str] | None:
    """None where the flow is a file of the pods."""
    from agentflow import from_mapping
    from agentflow.placement import stages
    from agentflow.planning import plan
    from agentflow_serve.deployment_options import sim_name
    from agentflow_serve.serve_config import RULES, rules_inside
    from llmhub_runtime.config_loader import parse_runtime_config

    if isinstance(args.llmhub, dict):
        parse_runtime_config(args.llmhub)
    rules_inside({name: given for name in RULES if isinstance(given := getattr(args, name), dict)})
    if isinstance(args.flow, str):
        return None
    planned = plan(from_mapping(args.flow, has_embedder=args.embedder is not None).flow)
    placed = {stage.deployment for stage in stages(planned, args.placement) if stage.deployment}
    return {planned.name, sim_name(planned.name), *placed}
