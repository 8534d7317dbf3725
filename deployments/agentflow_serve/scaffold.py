"""What a new project consists of, and how it comes to be on disk: as a whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agentflow import loads
from agentflow.planning import plan
from agentflow.samples import sample_request
from agentflow_serve.errors import ProjectNotWritten

NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
"""A name that a flow, a folder and a Kubernetes service can all have."""

FLOW_FILE = "flow.yaml"
_RENAMED = {"gitignore": ".gitignore"}
_NAME_TOKEN = "flow-name"
_REQUEST_TOKEN = "SAMPLE-REQUEST"
_INSTANCES_TOKEN = "SAMPLE-INSTANCES"


@dataclass(frozen=True, slots=True)
class Project:
    """`files` maps a name to its text; `sample` is a request that fits the flow."""

    files: Mapping[str, str]
    sample: Mapping[str, Any]


def suggested_name(text: str) -> str | None:
    """The nearest good name to `text`, None if there is none."""
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower())[:63].strip("-")
    return slug if NAME.fullmatch(slug) else None


def project(template: str, name: str) -> Project:
    """The files of a template, for a flow called `name`, which must match NAME."""
    folder = files("agentflow_serve") / "templates"
    texts = {
        _RENAMED.get(file.name, file.name): file.read_text(encoding="utf-8").replace(_NAME_TOKEN, name)
        for part in ("shared", template)
        for file in (folder / part).iterdir()
    }
    sample = sample_request(plan(loads(texts[FLOW_FILE], file=FLOW_FILE).flow).signature)
    readme = texts["README.md"].replace(_REQUEST_TOKEN, shlex.quote(json.dumps(sample)))
    texts["README.md"] = readme.replace(_INSTANCES_TOKEN, shlex.quote(json.dumps({"instances": [sample]})))
    return Project(texts, sample)


def write_folder(target: Path, texts: Mapping[str, str | bytes]) -> None:
    """Make the folder `target` with these files, in one step; an empty one may be there. Raises ProjectNotWritten."""
    target = Path(os.path.abspath(target))
    if target == Path.cwd():  # it would be replaced under the feet of the shell
        raise ProjectNotWritten(f"{target} is the folder that you are in: start from the one above it")
    try:
        if target.is_dir() and any(target.iterdir()):
            raise ProjectNotWritten(f"{target} is there already and not empty: choose another name, or --dir")
        with TemporaryDirectory(dir=target.parent, prefix=".agentflow-new-") as scratch:
            folder = Path(scratch) / target.name
            folder.mkdir()
            for name, text in texts.items():
                file = folder / name
                file.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(text, bytes):
                    file.write_bytes(text)
                else:
                    file.write_text(text, encoding="utf-8")
            # Onto an empty folder this is one step too; whatever else came in between makes it fail.
            folder.rename(target)
    except OSError as exc:
        raise ProjectNotWritten(f"cannot write {target}: {exc.strerror}") from exc
