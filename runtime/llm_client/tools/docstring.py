"""What a docstring says to a model: the text before its sections, and a line for each parameter."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field

_SECTION = re.compile(r"(Args|Arguments|Parameters|Returns|Yields|Raises|Examples?|Notes?):\s*")
_PARAMETERS = frozenset({"Args", "Arguments", "Parameters"})
_ENTRY = re.compile(r"(?P<indent>\s+)\*{0,2}(?P<name>\w+)\s*(?:\([^)]*\))?\s*:\s*(?P<text>.*)")


@dataclass(slots=True)
class Described:
    text: str = ""
    parameters: dict[str, str] = field(default_factory=dict[str, str])


def described(docstring: str | None) -> Described:
    """Read a docstring; parameters are described in a section `Args:`, one indented `name: text` each."""
    found, section, text = Described(), None, list[str]()
    entries: list[str] = []
    for line in inspect.cleandoc(docstring or "").splitlines():
        if heading := _SECTION.fullmatch(line):
            section = heading[1]
        elif section is None:
            text.append(line)
        elif section in _PARAMETERS:
            entries.append(line)
    found.text = "\n".join(text).strip()
    found.parameters = _entries(entries)
    return found


def _entries(lines: list[str]) -> dict[str, str]:
    """A line that is indented deeper than the first entry continues the one before it."""
    entries: dict[str, str] = {}
    indent, name = None, None
    for line in lines:
        entry = _ENTRY.fullmatch(line)
        if entry and (indent is None or entry["indent"] == indent):
            indent, name = entry["indent"], entry["name"]
            entries[name] = entry["text"].strip()
        elif name is not None and line.strip():
            entries[name] = f"{entries[name]} {line.strip()}".strip()
    return entries
