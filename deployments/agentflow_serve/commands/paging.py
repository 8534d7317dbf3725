"""Options of commands that show what is stored a page at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

T = TypeVar("T")

MORE = "there are more: --limit shows up to 1000, and --after goes on at the `next` that --json ends with"

limit_option = click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000), help="So many.")
after_option = click.option("--after", metavar="CURSOR", help="Go on after the page whose `next` this was.")


def place_of(after: str | None, read: Callable[[str], T]) -> T | None:
    """Where `--after` says to go on, as `read` has it. Raises click.BadParameter where that raises ValueError."""
    if after is None:
        return None
    try:
        return read(after)
    except ValueError as exc:
        raise click.BadParameter("no page has this as its `next`", param_hint="--after") from exc
