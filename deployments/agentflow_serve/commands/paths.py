"""Arguments that name a flow file or a configuration, and what a shell offers for them."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click
from click.shell_completion import CompletionItem

SUFFIXES = (".yaml", ".yml", ".json")


class DocumentPath(click.Path):
    """An existing file. A shell is offered YAML and JSON files, and the folders on the way to them."""

    def __init__(self) -> None:
        super().__init__(exists=True, dir_okay=False, path_type=Path)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        found = documents(incomplete)
        if not found or any(shlex.quote(name) != name for name in found):
            return super().shell_complete(ctx, param, incomplete)  # the shell knows how to quote; we do not
        return [CompletionItem(name) for name in found]


DOCUMENT = DocumentPath()


def documents(incomplete: str) -> list[str]:
    """The names that `incomplete` may become; a folder that is the only one is opened, so that no space ends it."""
    folder, slash, start = incomplete.rpartition("/")
    prefix = folder + slash
    try:
        with os.scandir(os.path.expanduser(prefix) or ".") as entries:
            found = [(entry.name, entry.is_dir()) for entry in entries if entry.name.startswith(start)]
    except OSError:
        return []
    names = sorted(
        f"{prefix}{name}{'/' if is_folder else ''}"
        for name, is_folder in found
        if (is_folder or name.endswith(SUFFIXES)) and name.startswith(".") <= start.startswith(".")
    )
    return documents(names[0]) or names if len(names) == 1 and names[0].endswith("/") else names
