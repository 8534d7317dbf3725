"""Findings: everything that validation has to say about a flow, as data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

PathStep = str | int
Severity = Literal["error", "warning"]

MAX_FINDINGS = 100
"""Errors, and warnings, of one report. A hostile file could hold one in every byte; a person reads the first few."""
MORE = "more-findings"
MAX_PATH = 300
"""Characters of a path in the text of a finding: keys of a file can be as long as the file."""


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
        path = self.dotted_path if len(self.dotted_path) <= MAX_PATH else f"{self.dotted_path[:MAX_PATH]}..."
        where = " ".join(part for part in (str(self.place or ""), path) if part)
        hint = f" ({self.hint})" if self.hint else ""
        return _visible(f"{where}: {self.severity} {self.code}: {self.message}{hint}")


def _visible(text: str) -> str:
    """One line, without the characters that steer a terminal or forge a line of a log."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def errors(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Those findings that keep a flow from running."""
    return tuple(finding for finding in findings if finding.severity == "error")


def first_of(findings: Iterable[Finding]) -> Iterator[Finding]:
    """The first errors and warnings, then a word about more. After too many errors nobody looks further."""
    seen = {"error": 0, "warning": 0}
    for finding in findings:
        seen[finding.severity] += 1
        if seen[finding.severity] <= MAX_FINDINGS:
            yield finding
        elif finding.severity == "error":
            message = f"there are more errors than these {MAX_FINDINGS}"
            yield Finding(MORE, message, "correct these first, then look again")
            return
    if seen["warning"] > MAX_FINDINGS:
        message = f"there are {seen['warning'] - MAX_FINDINGS} more warnings"
        yield Finding(MORE, message, "see to these first", severity="warning")
