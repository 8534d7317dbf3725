"""A flow and its settings become the files of a context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentflow_serve.args import parse_args
from agentflow_serve.container import files
from agentflow_serve.container.lock import closure, installed_lock, locked_part, read_lock
from agentflow_serve.container.needs import needs_of
from agentflow_serve.container.wheel import own_wheel
from agentflow_serve.inputs import read_inputs
from agentflow_serve.manifests.subject import POD_STORE
from agentflow_serve.manifests.yaml_text import yaml_of
from agentflow_serve.serve_config import app_args, check_code, config_around

PYTHON = "3.11-slim-bookworm"


@dataclass(frozen=True, slots=True)
class Context:
    flow: str
    files: Mapping[str, str | bytes]
    installed_code: tuple[str, ...]


def context_of(
    flow: Path, llmhub: Path | None, settings: Mapping[str, Any], *, lock: Path | None, digest: str | None
) -> Context:
    """Everything that `docker build` needs. Raises FlowInvalid, ConfigError and the like, and PackageInvalid."""
    document = app_args(flow, llmhub, {"store": POD_STORE, **{k: v for k, v in settings.items() if v is not None}})
    document["flow"].pop("tests", None)
    args = parse_args(document)
    inputs = read_inputs(args)
    check_code(inputs, args)
    needs = needs_of(args, inputs)
    names = closure(needs.roots)
    requirements = locked_part(read_lock((lock or installed_lock()).read_text(encoding="utf-8")), names)
    wheel, data = own_wheel()
    made: dict[str, str | bytes] = {
        "Dockerfile": files.dockerfile(name=inputs.plan.name.lower(), python=PYTHON, digest=digest, wheel=wheel),
        "requirements.txt": requirements,
        "entrypoint.sh": files.entrypoint(),
        "serve.yaml": yaml_of(config_around(document, name=inputs.plan.name, host="0.0.0.0", port=8000)),
        wheel: data,
    }
    made[".dockerignore"] = files.dockerignore([name for name in made if name != "Dockerfile"])
    return Context(inputs.plan.name, made, needs.installed_code)
