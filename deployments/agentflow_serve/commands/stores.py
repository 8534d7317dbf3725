"""The run store that a command works on: which one it is, what it says, and how that is printed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agentflow_serve.commands.paths import DOCUMENT
from runtime_core.stores.url import DEFAULT_STORE, MEMORY

if TYPE_CHECKING:
    from runtime_core.stores.database import Database

T = TypeVar("T")

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
scope_option = click.option("--scope", default="default", show_default=True, help="Whose: one tenant's.")


def where(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that name the run store, `store` and `config`, for `store_url`."""
    store = click.option("--store", help=f"The run store. [default: {DEFAULT_STORE}]")
    return click.option("--config", type=DOCUMENT, help="The serve config whose store it is.")(store(command))


def store_url(config: Path | None, store: str | None) -> str:
    """The address that the options name. Raises click.ClickException where they name none, or two."""
    if config is None:
        return store or DEFAULT_STORE
    if store is not None:
        raise click.UsageError("give --config or --store, not both")
    from agentflow_serve.serve_config import IMPORT_PATH, read_outline

    apps = [app for app in read_outline(config)["applications"] if app.get("import_path") == IMPORT_PATH]
    stores = {(app.get("args") or {}).get("store", DEFAULT_STORE) for app in apps}
    if len(stores) != 1:
        raise click.BadParameter("its apps do not share one store; name one with --store", param_hint="--config")
    return stores.pop()


def ask(url: str, question: Callable[[Database], Awaitable[T]], *, make: bool = False) -> T:
    """The answer of a store, which is opened and closed around the question. Only `make` makes one in a file.

    Raises click.BadParameter for a store that no other process can see or that is not there, and StoreError.
    """
    from runtime_core.stores.url import open_database, sqlite_path

    if url == MEMORY:
        raise click.BadParameter(
            "a store in memory ends with its process, and nobody else sees it; name one that stays",
            param_hint="--store",
        )
    if url.startswith("sqlite:") and not make and not sqlite_path(url).is_file():
        raise click.BadParameter(f"there is no file {sqlite_path(url)}", param_hint="--store")

    async def answer() -> T:
        async with open_database(url) as database:
            return await question(database)

    return asyncio.run(answer())


def canonical(value: str, option: str) -> str:
    """An id in its one spelling. Raises click.BadParameter."""
    from runtime_core.errors import IdentityError
    from runtime_core.ids import check_id

    try:
        return check_id(value, what="id")
    except IdentityError as exc:
        raise click.BadParameter(str(exc), param_hint=option) from exc


def canonical_id(_context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """The callback of an option that names an id. Raises click.BadParameter."""
    return None if value is None else canonical(value, option.opts[0])


def show_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=2))


def utc(seconds: float) -> str:
    """A moment, in seconds since the epoch, for people."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def printable(text: str) -> str:
    """What others wrote, a model or a user, as text that steers no terminal; lines and tabs stay."""
    return "".join(char if char.isprintable() or char in "\n\t" else "?" for char in text)
