"""From a flow file to a checked flow, or to everything that is wrong with it, each with its place.

The only module of this package that reads a file. YAML and JSON are both read; see `tree` for the limits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from agentflow.errors import FlowInvalid
from agentflow.findings import MORE, Finding, PathStep, Place, errors
from agentflow.garbage import garbage_collection_paused
from agentflow.ir import Flow
from agentflow.json_tree import read_json
from agentflow.plain_tree import read_plain
from agentflow.shapes import parse_flow
from agentflow.subflow_files import with_subflows
from agentflow.tree import MAX_BYTES, Tree
from agentflow.yaml_tree import read_yaml

if TYPE_CHECKING:
    from agentflow.checks import Surroundings

NO_FILE = "<flow>"
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")
MAX_NAMED = 3


@dataclass(frozen=True, slots=True)
class LoadedFlow:
    """A flow that can be planned and run. `findings` holds its warnings."""

    flow: Flow
    findings: tuple[Finding, ...] = ()
    file: str = NO_FILE
    _tree: Tree = field(default=Tree(NO_FILE), repr=False, compare=False)

    def source_of(self, path: Sequence[PathStep]) -> Place | None:
        """Where `path`, or the nearest thing around it, stands in the file; None for a flow given as data."""
        return self._tree.place(path)


def load(path: str | PathLike[str], **surroundings: Unpack[Surroundings]) -> LoadedFlow:
    """The flow in a file. Raises FlowInvalid with all findings, also when the file cannot be read."""
    return _loaded(_read_file(Path(path)), surroundings, Path(path))


def loads(text: str, *, file: str = NO_FILE, **surroundings: Unpack[Surroundings]) -> LoadedFlow:
    """The flow in YAML or JSON text; `file` is what places call it. Raises FlowInvalid with all findings."""
    return _loaded(_read_text(text, file), surroundings)


def from_mapping(data: Mapping[str, Any], *, file: str = NO_FILE, **surroundings: Unpack[Surroundings]) -> LoadedFlow:
    """A flow given as data, under the same limits as a file. Raises FlowInvalid with all findings."""
    return _loaded(read_plain(data, file=file), surroundings)


def inspect_flow(
    source: str | PathLike[str] | Mapping[str, Any], **surroundings: Unpack[Surroundings]
) -> tuple[Flow | None, tuple[Finding, ...]]:
    """The flow, if its shape is good, and all findings. Never raises for what is in it.

    `source` is data, or a path; a string with a line break, or one that begins with `{`, is the flow itself.
    """
    tree, file = _tree_of(source)
    return _inspected(with_subflows(tree, file=file, read=_read_file), surroundings)


def read_document(source: str | PathLike[str] | Mapping[str, Any]) -> Tree:
    """A document of another language, from a file or as data, under the limits of a flow file. It may have findings."""
    return read_plain(source, file=NO_FILE) if isinstance(source, Mapping) else _read_file(Path(source))


def _tree_of(source: str | PathLike[str] | Mapping[str, Any]) -> tuple[Tree, Path | None]:
    match source:
        case Mapping():
            return read_plain(source, file=NO_FILE), None
        case str() if "\n" in source or source.lstrip().startswith("{"):
            return _read_text(source, NO_FILE), None
        case _:
            return _read_file(Path(source)), Path(source)


def _loaded(tree: Tree, surroundings: Surroundings, file: Path | None = None) -> LoadedFlow:
    tree = with_subflows(tree, file=file, read=_read_file)
    flow, findings = _inspected(tree, surroundings)
    wrong = errors(findings)
    if flow is None or wrong:
        raise FlowInvalid(_summary(tree.file, wrong), findings=findings)
    return LoadedFlow(flow, findings, tree.file, replace(tree, data=None))


def _inspected(tree: Tree, surroundings: Surroundings) -> tuple[Flow | None, tuple[Finding, ...]]:
    from agentflow.checks import check  # half of this package, which a process that is given a checked flow spares

    if tree.findings:
        return None, tree.findings
    with garbage_collection_paused():
        flow, findings = parse_flow(tree.data)
        if flow is not None:
            findings = check(flow, **surroundings)
    placed = [replace(finding, place=tree.place(finding.path)) for finding in findings]
    return flow, tuple(sorted(placed, key=lambda finding: _position(finding, tree.file)))


def _position(finding: Finding, file: str) -> tuple[bool, bool, str, int, int]:
    """The file itself first, then those of its subflows."""
    place = finding.place or Place(file, 0, 0)
    return finding.code == MORE, place.file != file, place.file, place.line, place.column


def _summary(file: str, wrong: Sequence[Finding]) -> str:
    named = "; ".join(str(finding) for finding in wrong[:MAX_NAMED])
    more = f"; and {len(wrong) - MAX_NAMED} more" if len(wrong) > MAX_NAMED else ""
    return f"the flow {file} cannot be used: {named}{more}"


def _read_file(path: Path) -> Tree:
    file = str(path)
    try:
        if not path.is_file():
            return _refused(file, "unreadable-file", f"there is no file {file}", "check the path")
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as exc:
        return _refused(
            file, "unreadable-file", f"the file cannot be read: {exc}", "check the path and its permissions"
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        if len(content) > MAX_BYTES:
            return _too_large(file)
        return _not_utf8(file, content[: exc.start].decode("utf-8"))
    return _read_text(text, file)


def _read_text(text: str, file: str) -> Tree:
    try:
        size = len(text.encode())
    except UnicodeEncodeError as exc:
        return _not_utf8(file, text[: exc.start])
    if size > MAX_BYTES:
        return _too_large(file)
    if control := _CONTROL.search(text):
        message = f"the control character U+{ord(control[0]):04X} is not allowed in a file"
        hint = 'remove it; inside a quoted text, write it as "\\u..."'
        return _refused(file, "control-character", message, hint, before=text[: control.start()])
    text = text.removeprefix("\ufeff")
    with garbage_collection_paused():
        tree = read_json(text, file=file) if text.lstrip()[:1] in ("{", "[") else None
        return tree or read_yaml(text, file=file)


def _not_utf8(file: str, before: str) -> Tree:
    return _refused(file, "not-utf-8", "the file is not UTF-8 text", "save it as UTF-8", before=before)


def _too_large(file: str) -> Tree:
    return _refused(file, "too-large", f"the file has more than {MAX_BYTES:,} bytes", "split the flow")


def _refused(file: str, code: str, message: str, hint: str, *, before: str = "") -> Tree:
    """A tree of nothing but one finding; `before` is the text in front of its place."""
    column = len(before) - (before.rfind("\n") + 1)
    place = Place(file, before.count("\n") + 1, column + 1)
    return Tree(file, findings=(Finding(code=code, message=message, hint=hint, place=place),))
