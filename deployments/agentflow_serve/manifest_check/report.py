"""What a check finds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Found = Iterable["tuple[str, str]"]
"""What a layer gives: a path inside the document, and a sentence."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object and the file, or the overlay, that it is from."""

    file: str
    data: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.data.get("kind"))

    @property
    def api(self) -> str:
        return str(self.data.get("apiVersion"))

    @property
    def metadata(self) -> dict[str, Any]:
        return mapping(self.data.get("metadata"))

    @property
    def name(self) -> str:
        return str(self.metadata.get("name"))

    @property
    def spec(self) -> dict[str, Any]:
        return mapping(self.data.get("spec"))


@dataclass(frozen=True, slots=True)
class Problem:
    file: str
    subject: str
    path: str
    message: str

    def __str__(self) -> str:
        where = " ".join(part for part in (self.file, self.subject, self.path) if part)
        return f"{where}: {self.message}"


@dataclass(frozen=True, slots=True)
class Report:
    """`skipped` says which layers could not look, and why."""

    documents: int
    problems: tuple[Problem, ...]
    skipped: tuple[str, ...]


def problem(manifest: Manifest, path: str, message: str) -> Problem:
    return Problem(manifest.file, f"{manifest.kind}/{manifest.name}", path, message)


def mapping(value: Any) -> dict[str, Any]:
    """A mapping to look into: schemas say elsewhere that it should be one."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[dict[str, Any]]:
    """The mappings of a list, and empty ones where something else stands."""
    return [mapping(each) for each in value] if isinstance(value, list) else []
