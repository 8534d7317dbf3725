"""Generated manifests as data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
CONFIGS = ROOT / "configs"
CRDS = ROOT / "tests" / "crds"
DESK = (
    str(CONFIGS / "flows" / "returns_desk.yaml"),
    *("--llmhub", str(CONFIGS / "llmhub.real.yaml")),
    *("--feature-store", "hopsworks:support"),
    *("--embedder", "llm.embed"),
    "--open-to-network",
)
"""The arguments of `agentflow manifests` for the example flow on real models."""


def documents(folder: Path) -> Iterator[dict[str, Any]]:
    """Every object in a folder, patches left out."""
    for file in sorted(folder.rglob("*.yaml")):
        yield from (each for each in yaml.load_all(file.read_text(), Loader=yaml.CSafeLoader) if isinstance(each, dict))


def one(folder: Path, kind: str, name: str | None = None) -> dict[str, Any]:
    """The only object of that kind, or the one of that name."""
    found = [
        each
        for each in documents(folder)
        if each["kind"] == kind and (name is None or each["metadata"]["name"] == name)
    ]
    assert len(found) == 1, [each["metadata"]["name"] for each in found]
    return found[0]


def pods(folder: Path) -> dict[str, dict[str, Any]]:
    """The spec of every pod that the manifests make, by what it is."""
    cluster = one(folder, "RayService")["spec"]["rayClusterConfig"]
    made = {"head": cluster["headGroupSpec"]["template"]["spec"]}
    made |= {group["groupName"]: group["template"]["spec"] for group in cluster["workerGroupSpecs"]}
    made |= {
        each["metadata"]["name"]: each["spec"]["template"]["spec"]
        for each in documents(folder)
        if each["kind"] == "Deployment"
    }
    services = [each for each in documents(folder) if each["kind"] == "InferenceService"]
    return made | ({"gateway": services[0]["spec"]["predictor"]} if services else {})
