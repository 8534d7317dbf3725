"""`agentflow keys`: the API keys in a run store. A key is printed once, when it is made, and is nowhere afterwards."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from agentflow_serve.commands.exits import Exit
from agentflow_serve.commands.stores import ask, canonical, json_option, show_json, store_url, utc, where
from agentflow_serve.durations import FORMS, seconds_of

if TYPE_CHECKING:
    from agentflow_serve.auth.keys import ApiKey
    from agentflow_serve.auth.store import ApiKeys
    from runtime_core.stores.database import Database

T = TypeVar("T")


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

    identity = Identity(scope_id=canonical(scope, "--scope"), principal_id=canonical(principal, "--principal"))
    now = time.time()
    key = ApiKey(
        key_id=f"key-{secrets.token_hex(8)}",
        **identity.model_dump(),
        name=canonical(name, "--name") if name else None,
        flows=tuple(canonical(each, "--flow") for each in flows),
        created_at=now,
        expires_at=None if expires is None else now + _seconds(expires),
    )
    text = key_text(secrets.token_bytes(KEY_BYTES))
    _ask(store_url(config, store), lambda keys: keys.add(key, digest=digest_of(text)), make=True)
    if as_json:
        show_json({**key.model_dump(), "key": text})
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
    found = _ask(store_url(config, store), lambda keys: keys.list(scope_id=scope, limit=limit))
    if as_json:
        show_json({"keys": [each.model_dump() for each in found]})
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

    ended = _ask(store_url(config, store), revoke)
    if ended is None:
        click.echo(f"error: there is no key {'like this' if given is not None else key_id}", err=True)
        return Exit.FAILED
    click.echo(f"revoked {ended.key_id}; no replica takes it for longer than {KEY_FRESH_S:g} seconds")
    return Exit.OK


def _ask(url: str, question: Callable[[ApiKeys], Awaitable[T]], *, make: bool = False) -> T:
    async def answer(database: Database) -> T:
        from agentflow_serve.auth.store import ApiKeys

        keys = ApiKeys(database)
        await keys.prepare()
        return await question(keys)

    return ask(url, answer, make=make)


def _seconds(text: str) -> float:
    found = seconds_of(text)
    if found is None:
        raise click.BadParameter(f"write {FORMS}, such as 90d", param_hint="--expires")
    return found


def _end(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return f"revoked {utc(key.revoked_at)}"
    if key.expires_at is None:
        return "no end"
    return f"{'ended' if key.expires_at <= time.time() else 'until'} {utc(key.expires_at)}"
