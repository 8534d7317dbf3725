"""Serve configs: one made from a flow, one read from a file, and what is wrong with one before Ray starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, Field, ValidationError

from agentflow import load
from agentflow.ir import Code
from agentflow.samples import sample_request
from agentflow.tools import registered_tools
from agentflow_serve.args import AppArgs, parse_args
from agentflow_serve.auth.exposure import check_exposure
from agentflow_serve.errors import AppInvalid, ServeConfigUnread
from agentflow_serve.inputs import AppInputs, read_inputs
from agentflow_serve.manifest_check.yaml_reading import read_document
from agentflow_serve.ports import DEFAULT_HOST, DEFAULT_PORT
from flow_runtime.code import admit
from flow_runtime.hub_models import providers_of
from runtime_core.documents import Source

IMPORT_PATH = "agentflow_serve:app"
RULES = ("budgets", "policy")
"""The arguments that say who may do what, and how much of it."""


@dataclass(frozen=True, slots=True)
class CheckedApp:
    """One flow of a serve config. `sample` is a request that fits it."""

    name: str
    route_prefix: str
    model: str
    sample: Mapping[str, Any]
    asks_for_keys: bool = False


def config_of(flow: Path, llmhub: Path | None, *, host: str, port: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A serve config that carries the flow and the llmhub.yaml, so that it runs from any directory.

    `settings` are further keys of its `args`; those that are None are left out. Raises FlowInvalid, ConfigError.
    """
    args = app_args(flow, llmhub, settings)
    return config_around(args, name=args["flow"]["metadata"]["name"], host=host, port=port)


def config_around(args: Mapping[str, Any], *, name: str, host: str, port: int) -> dict[str, Any]:
    """A serve config for one machine, with one app of these arguments."""
    app = {"name": name, "route_prefix": "/", "import_path": IMPORT_PATH, "args": dict(args)}
    return {"proxy_location": "HeadOnly", "http_options": {"host": host, "port": port}, "applications": [app]}


def app_args(flow: Path, llmhub: Path | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The `args` of an app with the flow, the llmhub.yaml and the rules in them.

    Raises FlowInvalid, ConfigError, DocumentInvalid.
    """
    loaded = load(flow)
    args: dict[str, Any] = {"flow": loaded.flow.model_dump(mode="json", by_alias=True, exclude_unset=True)}
    if llmhub is not None:
        args["llmhub"] = read_llmhub(llmhub)
    given = {name: value for name, value in settings.items() if value is not None}
    return args | given | rules_inside({name: given[name] for name in RULES if name in given})


def rules_inside(given: Mapping[str, Source]) -> dict[str, Any]:
    """The documents of budgets and policy, by the names of their arguments. Raises DocumentInvalid."""
    from agent_runtime.ledger.budget_file import load_budgets
    from agent_runtime.policy.policy_file import OF_FLOWS, load_policy

    found: dict[str, Any] = {}
    if "budgets" in given:
        found["budgets"] = load_budgets(given["budgets"]).model_dump(mode="json", exclude_none=True)
    if "policy" in given:
        found["policy"] = load_policy(given["policy"], kinds=OF_FLOWS).model_dump(mode="json", exclude_unset=True)
    return found


def read_llmhub(path: Path) -> dict[str, Any]:
    """The document in an llmhub.yaml. Raises ConfigError."""
    from llmhub_runtime.config_loader import load_runtime_config

    load_runtime_config(str(path))
    return yaml.safe_load(path.read_text())


def read_config(path: Path) -> dict[str, Any]:
    """The serve config in a file. Raises AppInvalid when it is none."""
    from ray.serve.schema import ServeDeploySchema

    document = _read(path, ServeDeploySchema)
    if not document.get("applications"):
        raise AppInvalid(f"{path} is not a serve config: it has no applications")
    return document


def read_deployable(path: Path) -> dict[str, Any]:
    """The serve config in a file, or inside the RayService of a manifest. Raises AppInvalid."""
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise AppInvalid(f"{path} is not YAML: {' '.join(str(exc).split())}") from exc
    services = [each for each in documents if isinstance(each, dict) and each.get("kind") == "RayService"]
    if not services:
        return read_config(path)
    text = (services[0].get("spec") or {}).get("serveConfigV2")
    try:
        return read_serve_config(text)
    except ServeConfigUnread as exc:
        raise AppInvalid(f"the RayService in {path} cannot be deployed: {exc}") from exc


def read_serve_config(text: Any) -> dict[str, Any]:
    """The config in the text of a `serveConfigV2`. Raises ServeConfigUnread."""
    if not isinstance(text, str):
        raise ServeConfigUnread("the serve config is a text: write `serveConfigV2: |` and indent it")
    try:
        document = read_document(text)
    except yaml.YAMLError as exc:
        raise ServeConfigUnread(f"the serve config is not YAML: {' '.join(str(exc).split())}") from exc
    if not isinstance(document, dict) or not document.get("applications"):
        raise ServeConfigUnread("the serve config has no applications")
    return document


def read_outline(path: Path) -> dict[str, Any]:
    """A serve config of which only what we read is checked: Ray, which knows the rest, takes seconds to import.

    Raises AppInvalid.
    """
    return _read(path, _Outline)


class _HttpOptions(BaseModel):
    host: str = DEFAULT_HOST
    port: int = Field(default=DEFAULT_PORT, strict=True)


class _Outline(BaseModel):
    http_options: _HttpOptions | None = None
    applications: Annotated[list[dict[str, Any]], Field(min_length=1)]


def _read(path: Path, shape: type[BaseModel]) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        shape.model_validate(document)
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise AppInvalid(f"{path} is not YAML: {' '.join(str(exc).split())}") from exc
    except ValidationError as exc:
        problems = "; ".join(f"{'.'.join(map(str, each['loc'])) or path}: {each['msg']}" for each in exc.errors())
        raise AppInvalid(f"{path} is not a serve config: {problems}") from exc
    return document


def check_config(document: Mapping[str, Any], environ: Mapping[str, str] | None) -> tuple[CheckedApp, ...]:
    """Every flow of a serve config; `environ` is where the keys of its providers must be, None if that is elsewhere.

    Raises FlowInvalid, ConfigError, UnknownRoleError, EnvVarMissingError, CodeRefused or AppInvalid: what a
    replica would find out only after everything has started.
    """
    return tuple(_checked(app, environ) for app in document["applications"] if app.get("import_path") == IMPORT_PATH)


def check_openness(document: Mapping[str, Any]) -> None:
    """Raises AppInvalid where an app of ours asks nobody for a key and listens on more than loopback unsaid."""
    ours = [app for app in document["applications"] if app.get("import_path") == IMPORT_PATH]
    check_exposure({app.get("name") or "default": app.get("args") or {} for app in ours}, host=address_of(document)[0])


def address_of(document: Mapping[str, Any]) -> tuple[str, int]:
    """Where the proxy will listen."""
    options = document.get("http_options") or {}
    return options.get("host", DEFAULT_HOST), options.get("port", DEFAULT_PORT)


def _checked(app: Mapping[str, Any], environ: Mapping[str, str] | None) -> CheckedApp:
    args = parse_args(app.get("args") or {})
    inputs = read_inputs(args)
    check_code(inputs, args)
    if inputs.llmhub is not None and environ is not None:
        from llmhub_runtime.endpoints import check_keys

        used = providers_of(inputs.plan.flow, inputs.llmhub, args.embedder)
        providers = {name: provider for name, provider in inputs.llmhub.providers.items() if name in used}
        check_keys(inputs.llmhub.model_copy(update={"providers": providers}), environ)
    return CheckedApp(
        name=app.get("name") or "default",
        route_prefix=app.get("route_prefix") or "/",
        model=inputs.plan.name,
        sample=sample_request(inputs.plan.signature),
        asks_for_keys=args.auth == "keys",
    )


def check_code(inputs: AppInputs, args: AppArgs) -> None:
    """Raises CodeRefused where the flow has code that the arguments do not allow, ToolUnknown for an absent tool."""
    for name in inputs.plan.settings:
        node = inputs.plan.node(name)
        if isinstance(node.transform, Code):
            admit(node.transform, name, args.code)
        for tool in registered_tools(node):
            from flow_runtime.registered_tools import admit_tool

            admit_tool(tool, name, args.code)
