"""Reading manifests: every object of a folder, and what its overlays make of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from agentflow_serve.manifest_check.report import Manifest, Problem, items, mapping
from agentflow_serve.manifest_check.yaml_reading import read_documents

KUSTOMIZATION = ("kustomization.yaml", "kustomization.yml")
SUFFIXES = {".yaml", ".yml"}
MAX_BYTES = 8 * 1024 * 1024


class Folder:
    """`manifests` as the files have them, `overlaid` as patches leave them."""

    def __init__(self, path: Path) -> None:
        self.manifests: list[Manifest] = []
        self.overlaid: list[Manifest] = []
        self.problems: list[Problem] = []
        self._root = path if path.is_dir() else path.parent
        self._patches: dict[Path, Any] = {}
        kustomizations: list[tuple[Path, dict[str, Any]]] = []
        for file in _files(path):
            for document in self._read(file):
                if isinstance(document, list):
                    self._patches[file.resolve()] = document
                elif not isinstance(document, dict) or not {"apiVersion", "kind"} <= document.keys():
                    self._complain(file, "is no Kubernetes object: it needs apiVersion and kind")
                elif file.name in KUSTOMIZATION:
                    kustomizations.append((file, document))
                elif not isinstance(mapping(document.get("metadata")).get("name"), str):
                    self._complain(file, f"a {document['kind']} has no metadata.name")
                else:
                    self.manifests.append(Manifest(self._name(file), document))
        used: set[Path] = set()
        for file, document in kustomizations:
            used |= self._overlay(file, document)
        for file in self._patches.keys() - used:
            self._complain(file, "is a list: no kustomization names it as a patch, and no object is one")

    def _read(self, file: Path) -> list[Any]:
        try:
            if file.stat().st_size > MAX_BYTES:
                self._complain(file, f"is larger than {MAX_BYTES // 2**20} MiB")
                return []
            return read_documents(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as exc:
            self._complain(file, f"is not YAML: {' '.join(str(exc).split())}")
            return []

    def _overlay(self, file: Path, document: dict[str, Any]) -> set[Path]:
        """Follow a kustomization; the patch files that it uses."""
        for key in ("resources", "components"):
            for name in document.get(key) or ():
                if "://" not in str(name) and not (file.parent / str(name)).exists():
                    self._complain(file, f"{key}: there is no {name}")
        used: set[Path] = set()
        for patch in items(document.get("patches")):
            name = patch.get("path")
            if not isinstance(name, str):
                continue
            place = (file.parent / name).resolve()
            used.add(place)
            if place in self._patches:
                self._apply(file, mapping(patch.get("target")), self._patches[place], place)
            elif not place.exists():
                self._complain(file, f"patches: there is no {name}")
            else:
                self._merged(file, place)
        return used

    def _merged(self, file: Path, place: Path) -> None:
        for patch in [each for each in self.manifests if (self._root / each.file).resolve() == place]:
            self.manifests.remove(patch)
            if "workerGroupSpecs" in mapping(patch.spec.get("rayClusterConfig")):
                self._complain(
                    file,
                    f"{place.name} merges into workerGroupSpecs, which replaces the whole list and drops the pods: "
                    "write a list of operations (op, path, value) instead",
                )

    def _apply(self, file: Path, target: dict[str, Any], operations: list[Any], place: Path) -> None:
        meant = [each for each in self.manifests if _is_meant(each, target)]
        if not meant:
            self._complain(file, f"patches: no {target.get('kind')} is called {target.get('name')}")
        for manifest in meant:
            data = copy.deepcopy(manifest.data)
            for operation in items(operations):
                try:
                    _operate(data, operation)
                except (LookupError, TypeError, ValueError):
                    self._complain(place, f"{operation.get('op')} {operation.get('path')}: there is no such place")
            self.overlaid.append(Manifest(self._name(place), data))

    def _complain(self, file: Path, message: str) -> None:
        self.problems.append(Problem(self._name(file), "", "", message))

    def _name(self, file: Path) -> str:
        return str(file.resolve().relative_to(self._root.resolve()))


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for file in sorted(path.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        if file.suffix in SUFFIXES and file.is_file() and not file.is_symlink() and not hidden:
            yield file


def _is_meant(manifest: Manifest, target: dict[str, Any]) -> bool:
    return target.get("kind") in (None, manifest.kind) and target.get("name") in (None, manifest.name)


def _operate(data: Any, operation: dict[str, Any]) -> None:
    """One operation of a JSON patch. Raises LookupError, TypeError or ValueError where its path does not exist."""
    *way, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
    for part in way:
        data = data[int(part)] if isinstance(data, list) else data[part]
    key: Any = last
    if isinstance(data, list):
        key = len(data) if last == "-" else int(last)
    match operation["op"]:
        case "add" if isinstance(data, list):
            data.insert(key, operation["value"])
        case "add":
            data[key] = operation["value"]
        case "replace":
            _ = data[key]  # it must be there
            data[key] = operation["value"]
        case "remove":
            del data[key]
        case _:
            raise ValueError(operation["op"])
