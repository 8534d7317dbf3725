"""The names that a flow's own names become in Python."""

from __future__ import annotations

import re

MAX_PLAIN = 60
"""Characters of a foreign name in a comment."""


def class_name(flow: str) -> str:
    """`returns-desk` is ReturnsDeskAgent; a name that says agent already says it once (IR.md Q41)."""
    words = [word for word in re.split(r"[^A-Za-z0-9]+", flow) if word]
    if words[-1].lower() == "agent":
        words.pop()
    return "".join(word[0].upper() + word[1:] for word in words) + "Agent"


def plain(text: str, *, most: int = MAX_PLAIN) -> str:
    """A text as it may stand in a comment or a docstring: on one line, printable, without quotes and backslashes."""
    safe = "".join(char if char.isprintable() and char not in "\"'\\#" else "?" for char in text)
    short = safe if len(safe) <= most else f"{safe[:most]}..."
    return " ".join(short.split()) or "?"
