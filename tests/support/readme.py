"""The README as data: its code blocks, and the commands in them with the output that they promise."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).parent.parent.parent / "README.md"


@dataclass(frozen=True, slots=True)
class Example:
    """A line that begins with `$ ` in a console block, and the lines below it."""

    command: str
    output: str


def blocks(language: str) -> list[str]:
    """The contents of every code block in that language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)


def examples() -> list[Example]:
    found: list[Example] = []
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append(Example(command, tidy(output)))
    return found


def tidy(text: str) -> str:
    """Without the spaces that end a line, the empty lines around, and what is another one each time."""
    text = re.sub(r"afk_[\w-]{43}", "afk_...", text)
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines()).strip("\n")
