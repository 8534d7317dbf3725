"""Subflows named by a file: their text is put in the place of the path, so that a flow is one document.

A path is relative to the file that names it and stays inside that file's folder, whatever links lead out of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from agentflow.findings import Finding, PathStep
from agentflow.tree import Graft, Tree, shortened

MAX_DEPTH = 8
"""Flows inside flows."""
MAX_FILES = 64
"""Files that one flow may be made of; a file that is used twice counts twice."""
_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")

Steps = tuple[PathStep, ...]


def with_subflows(tree: Tree, *, file: Path | None, read: Callable[[Path], Tree]) -> Tree:
    """`tree` with the text of every subflow in the place of its path; the findings say what is in the way.

    `file` is where the tree was read from, None for a flow that never was a file. `read` never raises.
    """
    if tree.findings:
        return tree
    return _Reader(read).resolve(tree, (file.resolve(),) if file is not None else (), depth=1)


class _Reader:
    def __init__(self, read: Callable[[Path], Tree]) -> None:
        self._read = read
        self._files = 0

    def resolve(self, tree: Tree, chain: tuple[Path, ...], *, depth: int) -> Tree:
        """`chain` are the files on the way here, the tree's own last."""
        visit = _Visit(self, tree, chain)
        data = visit.flow(tree.data, (), depth)
        return replace(tree, data=data, findings=tuple(visit.findings), grafts=tuple(visit.grafts))

    def open(self, path: Path, chain: tuple[Path, ...], *, depth: int) -> Tree:
        tree = self._read(path)
        return tree if tree.findings else self.resolve(tree, (*chain, path), depth=depth)

    def count(self) -> bool:
        """Whether one more file may be read."""
        self._files += 1
        return self._files <= MAX_FILES


class _Visit:
    """The way through one document."""

    def __init__(self, reader: _Reader, tree: Tree, chain: tuple[Path, ...]) -> None:
        self._reader = reader
        self._tree = tree
        self._chain = chain
        self.findings: list[Finding] = []
        self.grafts: list[Graft] = []

    def flow(self, data: Any, at: Steps, depth: int) -> Any:
        """A flow's data with its subflows in it; what has not the shape of a flow is left to later."""
        nodes = _mapping(_mapping(data).get("nodes"))
        changed = {
            name: {**_mapping(node), "flow": self._subflow(_mapping(node)["flow"], (*at, "nodes", name, "flow"), depth)}
            for name, node in nodes.items()
            if _mapping(node).get("type") == "subflow" and "flow" in _mapping(node)
        }
        return {**_mapping(data), "nodes": {**nodes, **changed}} if changed else data

    def _subflow(self, value: Any, at: Steps, depth: int) -> Any:
        if depth > MAX_DEPTH:
            self._report("too-many-subflows", f"flows are nested more than {MAX_DEPTH} deep", "flatten them", at)
            return value
        if isinstance(value, str):
            return self._file(value, at, depth)
        return self.flow(value, at, depth + 1)

    def _file(self, name: str, at: Steps, depth: int) -> Any:
        path = self._path(name, at)
        if path is None:
            return name
        if path in self._chain:
            loop = [each.name for each in (*self._chain[self._chain.index(path) :], path)]
            self._report("subflow-recursion", f"a flow runs itself: {' -> '.join(loop)}", "remove one of them", at)
        elif not self._reader.count():
            self._report("too-many-subflows", f"the flow is made of more than {MAX_FILES} files", "use fewer", at)
        else:
            inner = self._reader.open(path, self._chain, depth=depth + 1)
            self.findings += (replace(finding, path=(*at, *finding.path)) for finding in inner.findings)
            self.grafts.append((at, inner))
            return inner.data
        return name

    def _path(self, name: str, at: Steps) -> Path | None:
        """The file that `name` means, with every link followed, if it may be read."""
        hint = "name a file in the folder of this flow, or below it, such as parts/clean.yaml"
        if not self._chain:
            message = "a flow that is not a file cannot name the file of a subflow"
            self._report("bad-subflow-path", message, "give the subflow itself, or load the flow from its file", at)
            return None
        if not _PATH.fullmatch(name):
            message = f"'{shortened(name)}' is not a path inside the folder of this flow"
            self._report("bad-subflow-path", message, hint, at)
            return None
        folder = self._chain[-1].parent
        try:
            path = (folder / name).resolve(strict=True)
        except (OSError, RuntimeError) as exc:
            self._report("bad-subflow-path", f"there is no file {name} beside this flow", f"{hint} ({exc})", at)
            return None
        if not path.is_relative_to(folder):
            message = f"the link {name} leads out of the folder of this flow"
            self._report("bad-subflow-path", message, "put the file itself there", at)
            return None
        return path

    def _report(self, code: str, message: str, hint: str, at: Steps) -> None:
        self.findings.append(Finding(code, message, hint, at, place=self._tree.place(at)))


def _mapping(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
