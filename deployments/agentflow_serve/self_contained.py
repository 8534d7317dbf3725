"""A serve config with every file of it inside, and which files those were: what a reload reads, and what it watches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from agentflow import LoadedFlow, load
from agentflow.feature_use import code_modules
from agentflow.findings import PathStep
from agentflow.ir import Flow
from agentflow_serve.errors import AppInvalid
from agentflow_serve.manifests.config import FLOW_PATH
from agentflow_serve.serve_config import IMPORT_PATH, RULES, config_around, read_llmhub, rules_inside

FILES = ("flow", "llmhub", "sim_script", *RULES)
"""The arguments that may be a path."""


@dataclass(frozen=True, slots=True)
class SelfContained:
    """`modules` are those with code of the flows; a change of theirs shows in the document as another revision."""

    document: Mapping[str, Any]
    files: frozenset[Path] = frozenset()
    modules: tuple[str, ...] = ()

    def watching(self, *files: Path) -> SelfContained:
        return replace(self, files=self.files | set(files))


def self_contained(document: Mapping[str, Any], *, placement: str | None = None) -> SelfContained:
    """Read what a serve config names. `placement` is for apps that do not say one.

    An app whose flow is in a ConfigMap of its pods stays as it is.
    Raises FlowInvalid, ConfigError, AppInvalid and OSError, as for a config with paths.
    """
    apps: list[Any] = []
    files: set[Path] = set()
    modules: set[str] = set()
    for app in document["applications"]:
        if app.get("import_path") != IMPORT_PATH or (app.get("args") or {}).get("flow") == FLOW_PATH:
            apps.append(app)
            continue
        given = dict(app.get("args") or {})
        if placement is not None:
            given.setdefault("placement", placement)
        args, read, used = _inside(given)
        apps.append({**app, "args": args})
        files |= read
        modules |= used
    return SelfContained({**document, "applications": apps}, frozenset(files), tuple(sorted(modules)))


def self_contained_flow(
    flow: Path, llmhub: Path | None, *, host: str, port: int, settings: Mapping[str, str | None]
) -> SelfContained:
    """The same for a flow without a serve config."""
    args: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
    args |= {"flow": str(flow)} | ({"llmhub": str(llmhub)} if llmhub is not None else {})
    made = self_contained(config_around(args, name="", host=host, port=port), placement="inline")
    [app] = made.document["applications"]
    named = {**app, "name": app["args"]["flow"]["metadata"]["name"]}
    return replace(made, document={**made.document, "applications": [named]})


def _inside(given: Mapping[str, Any]) -> tuple[dict[str, Any], set[Path], frozenset[str]]:
    paths = {name: Path(given[name]) for name in FILES if isinstance(given.get(name), str)}
    for path in paths.values():
        if not path.is_file():
            raise AppInvalid(f"there is no file {path} (looked from {Path.cwd()}); start where the path holds")
    files = set(paths.values())
    args = dict(given)
    if "flow" in paths:
        loaded = load(paths["flow"], has_embedder=given.get("embedder") is not None)
        files |= set(_files_of(loaded))
        args["flow"] = loaded.flow.model_dump(mode="json", by_alias=True, exclude_unset=True)
        modules = code_modules(loaded.flow.nodes.values())
    else:
        modules = frozenset[str]()
    if "llmhub" in paths:
        args["llmhub"] = read_llmhub(paths["llmhub"])
    args |= rules_inside({name: paths[name] for name in RULES if name in paths})
    if "sim_script" in paths:
        args["sim_script"] = yaml.safe_load(paths["sim_script"].read_text(encoding="utf-8"))
    sources = [path for name in sorted(modules) if (path := _source(name)) is not None]
    if sources:
        args["revision"] = _digest(sources)
    return args, files | set(sources), modules


def _files_of(loaded: LoadedFlow) -> Iterator[Path]:
    """The files of the flow's subflows."""

    def inside(flow: Flow, at: tuple[PathStep, ...]) -> Iterator[Path]:
        for name, node in flow.nodes.items():
            if isinstance(node.flow, Flow):
                steps = (*at, "nodes", name, "flow")
                place = loaded.source_of((*steps, "nodes"))
                if place is not None:
                    yield Path(place.file)
                yield from inside(node.flow, steps)

    return inside(loaded.flow, ())


def _source(module: str) -> Path | None:
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin and spec.has_location else None


def _digest(files: Iterable[Path]) -> str:
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]
