"""`agentflow keys`: the API keys in a run store. A key is printed once, when it is made, and is nowhere afterwards."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agentflow_serve.commands.exits import Exit
from agentflow_serve.commands.paths import DOCUMENT

if TYPE_CHECKING:
    from agentflow_serve.auth.keys import ApiKey
    from agentflow_serve.auth.store import ApiKeys

T = TypeVar("T")

DEFAULT_STORE = "sqlite:///agentflow.sqlite"
SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def where(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that name the run store."""
    store = click.option("--store", help=f"The run store. [default: {DEFAULT_STORE}]")
    return click.option("--config", type=DOCUMENT, help="The serve config whose store it is.")(store(command))


@click.group("keys")
def command() -> None:
    """Make, list and revoke the API keys of those who may call (`auth: keys`)."""


@command.command("new")
@where
@click.option("--scope", required=True, help="The tenant that the key is for.")
@click.option("--principal", required=True, help="Who acts with it, within the tenant.")
@click.option("--name", help="A note for people.")
@click.option("--flow", "flows", multiple=True, help="A flow that it may call. [default: every flow of the store]")
@click.option("--expires", metavar="TIME", help="It ends after so long: 90d, 12h, 30m or 2w. [default: never]")
@json_option
def new_key(
    config: Path | None,
    store: str | None,
    scope: str,
    principal: str,
    name: str | None,
    flows: tuple[str, ...],
    expires: str | None,
    as_json: bool,
) -> int:
    """Make a key and print it: this once, for only its hash is kept."""
    from agentflow_serve.auth.keys import KEY_BYTES, ApiKey, digest_of, key_text
    from runtime_core.context import Identity

    identity = Identity(scope_id=_canonical(scope, "--scope"), principal_id=_canonical(principal, "--principal"))
    now = time.time()
    key = ApiKey(
        key_id=f"key-{secrets.token_hex(8)}",
        **identity.model_dump(),
        name=_canonical(name, "--name") if name else None,
        flows=tuple(_canonical(each, "--flow") for each in flows),
        created_at=now,
        expires_at=None if expires is None else now + _seconds(expires),
    )
    text = key_text(secrets.token_bytes(KEY_BYTES))
    _ask(_url(config, store), lambda keys: keys.add(key, digest=digest_of(text)), make=True)
    if as_json:
        click.echo(json.dumps({**key.model_dump(), "key": text}, indent=2))
        return Exit.OK
    click.echo(text)
    click.echo(f"{key.key_id}: {principal} of {scope}, {_end(key)}; this is the only time that it is shown", err=True)
    return Exit.OK


@command.command("list")
@where
@click.option("--scope", help="Only those of this tenant.")
@click.option("--limit", default=1000, show_default=True, type=click.IntRange(1), help="Show the latest so many.")
@json_option
def list_keys(config: Path | None, store: str | None, scope: str | None, limit: int, as_json: bool) -> int:
    """List keys, the newest first; what is listed opens nothing."""
    found = _ask(_url(config, store), lambda keys: keys.list(scope_id=scope, limit=limit))
    if as_json:
        click.echo(json.dumps({"keys": [each.model_dump() for each in found]}, indent=2))
        return Exit.OK
    for each in found:
        only = f"  only {', '.join(each.flows)}" if each.flows else ""
        name = f"  {each.name}" if each.name else ""
        click.echo(f"{each.key_id}  {each.scope_id}  {each.principal_id}  {_end(each)}{only}{name}")
    if not found:
        click.echo("there are no keys there; agentflow keys new makes one", err=True)
    return Exit.OK


@command.command("revoke")
@click.argument("key_id")
@where
def revoke_key(key_id: str, config: Path | None, store: str | None) -> int:
    """End the key KEY_ID for good, everywhere within five seconds.

    With `-` as KEY_ID the key itself is read from the standard input, as of one that was found in the open.
    """
    from agentflow_serve.auth.authenticator import KEY_FRESH_S
    from agentflow_serve.auth.keys import PREFIX, digest_of

    if key_id.startswith(PREFIX):
        raise click.BadParameter(
            "that is the key itself, which everybody on this machine can see in a command; "
            "name it by its id, or pass it to `agentflow keys revoke -`",
            param_hint="KEY_ID",
        )
    given = sys.stdin.readline().strip() if key_id == "-" else None

    async def revoke(keys: ApiKeys) -> ApiKey | None:
        found = await keys.find(digest_of(given)) if given is not None else None
        named = key_id if given is None else found.key_id if found else None
        return None if named is None else await keys.revoke(named, now=time.time())

    ended = _ask(_url(config, store), revoke)
    if ended is None:
        click.echo(f"error: there is no key {'like this' if given is not None else key_id}", err=True)
        return Exit.FAILED
    click.echo(f"revoked {ended.key_id}; no replica takes it for longer than {KEY_FRESH_S:g} seconds")
    return Exit.OK


def _url(config: Path | None, store: str | None) -> str:
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


def _ask(url: str, question: Callable[[ApiKeys], Awaitable[T]], *, make: bool = False) -> T:
    """The answer of the keys in a run store. Raises StoreError; only `make` makes a store in a file."""
    from agentflow_serve.auth.store import ApiKeys
    from runtime_core.stores.url import open_database, sqlite_path

    if url == "memory:":
        raise click.BadParameter("a store in memory ends with its process, and its keys too", param_hint="--store")
    if url.startswith("sqlite:") and not make and not sqlite_path(url).is_file():
        raise click.BadParameter(f"there is no file {sqlite_path(url)}", param_hint="--store")

    async def ask() -> T:
        async with open_database(url) as database:
            keys = ApiKeys(database)
            await keys.prepare()
            return await question(keys)

    return asyncio.run(ask())


def _canonical(value: str, option: str) -> str:
    from runtime_core.errors import IdentityError
    from runtime_core.ids import check_id

    try:
        return check_id(value, what="id")
    except IdentityError as exc:
        raise click.BadParameter(str(exc), param_hint=option) from exc


def _seconds(text: str) -> float:
    found = re.fullmatch(r"([1-9][0-9]{0,4})([mhdw])", text)
    if found is None:
        raise click.BadParameter("write a number and m, h, d or w, such as 90d", param_hint="--expires")
    return int(found[1]) * SECONDS[found[2]]


def _end(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return f"revoked {_time(key.revoked_at)}"
    if key.expires_at is None:
        return "no end"
    return f"{'ended' if key.expires_at <= time.time() else 'until'} {_time(key.expires_at)}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
