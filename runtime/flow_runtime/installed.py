"""What installed packages bring under an entry point group: found by name, loaded only when a flow names it."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any


class NotInstalled(Exception):
    """Says in a sentence what is not there, there twice, or does not load."""


def find(group: str, name: str, *, what: str) -> EntryPoint:
    """The one entry of that name; nothing is imported. `what` is a word for messages. Raises NotInstalled."""
    found = list(entry_points(group=group, name=name))
    if not found:
        raise NotInstalled(f"no installed package provides {what} '{name}' (entry point group {group})")
    if len(found) > 1:
        providers = ", ".join(sorted(entry.value for entry in found))
        raise NotInstalled(f"several packages provide {what} '{name}': {providers}")
    return found[0]


def load(group: str, name: str, *, what: str) -> Any:
    """What the entry stands for. Raises NotInstalled."""
    entry = find(group, name, what=what)
    try:
        return entry.load()
    except (ImportError, AttributeError) as exc:
        raise NotInstalled(f"{what} '{name}' does not load from {entry.value}: {exc}") from exc
