"""Which libraries a flow needs when it is served, as requirements of this package's own list."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from agentflow.feature_use import calls_models, code_modules
from agentflow.ir import Flow
from agentflow.settings import models_of
from agentflow.subflows import all_nodes
from agentflow.tools import registered_tools
from agentflow_serve.args import AppArgs
from agentflow_serve.inputs import AppInputs
from flow_runtime.hub_models import providers_of
from llmhub_runtime.models import SIM
from runtime_core.stores.url import is_postgres

ALWAYS = (
    "ray[serve]",
    "kserve",
    "pydantic",
    "PyYAML",
    "jinja2",
    "jsonschema",
    "httpx",
    "httpcore",
    "orjson",
    "packaging",
    "click",
    "rich",
)
MODELS = ("any-llm-sdk", "genai-prices", "mellea")
HOPSWORKS = ("hopsworks[python]",)
LOCAL_FEATURES = ("duckdb",)
POSTGRES = ("asyncpg",)
REDIS = ("redis",)


@dataclass(frozen=True, slots=True)
class Needs:
    """`roots` are requirements by name; `installed_code` are the modules of the operator that must be there too."""

    roots: tuple[str, ...]
    installed_code: tuple[str, ...]


def needs_of(args: AppArgs, inputs: AppInputs) -> Needs:
    return Needs(tuple(dict.fromkeys(_roots(args, inputs))), tuple(sorted(_installed_code(inputs.plan.flow))))


def _roots(args: AppArgs, inputs: AppInputs) -> Iterator[str]:
    nodes = list(all_nodes(inputs.plan.flow.nodes.values()))
    yield from ALWAYS
    if calls_models(nodes, args.embedder):
        yield from MODELS
        yield from _providers(args, inputs)
    kind = (inputs.feature_store or "").partition(":")[0]
    yield from {"hopsworks": HOPSWORKS, "local": LOCAL_FEATURES}.get(kind, ())
    if is_postgres(args.store):
        yield from POSTGRES
    if any(node.state is not None and node.state.backend == "redis" for node in nodes):
        yield from REDIS


def _providers(args: AppArgs, inputs: AppInputs) -> Iterable[str]:
    """any-llm's extra for each provider; those that need no package of their own have an empty one, or none."""
    if inputs.llmhub is None:
        return
    named = providers_of(inputs.plan.flow, inputs.llmhub, args.embedder)
    named |= {model.provider for model in models_of(inputs.plan.flow) if model.endpoint}
    for provider in sorted(named - {SIM}):
        yield f"any-llm-sdk[{provider.strip().lower()}]"


def _installed_code(flow: Flow) -> set[str]:
    tools = (tool for node in all_nodes(flow.nodes.values()) for tool in registered_tools(node))
    return {*code_modules(flow.nodes.values()), *(f"the tool '{tool}'" for tool in tools)}
