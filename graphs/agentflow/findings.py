"""Findings: everything that validation has to say about a flow, as data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

PathStep = str | int
Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a flow file; `line` and `column` count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong (`error`: the flow will not run) or doubtful (`warning`).

    `code` is stable and listed in docs/findings.md; `path` is the way to the field from the flow's root;
    `place` is known when the flow was loaded from text.
    """

    code: str
    message: str
    hint: str = ""
    path: tuple[PathStep, ...] = ()
    severity: Severity = "error"
    place: Place | None = None

    @property
    def dotted_path(self) -> str:
        """The path as people write it: `edges[2].condition`."""
        text = ""
        for step in self.path:
            text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
        return text

    def __str__(self) -> str:
        where = " ".join(part for part in (str(self.place or ""), self.dotted_path) if part)
        hint = f" ({self.hint})" if self.hint else ""
        return f"{where}: {self.severity} {self.code}: {self.message}{hint}"


def errors(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Those findings that keep a flow from running."""
    return tuple(finding for finding in findings if finding.severity == "error")
