"""`agentflow sessions`: what a run store remembers of the sessions of one scope."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import click

from agentflow_serve.commands.exits import Exit

if TYPE_CHECKING:
    from runtime_core.sessions.catalog import SessionCursor, SessionInfo
    from runtime_core.sessions.protocol import SessionRead
    from runtime_core.sessions.records import SessionRecord
    from runtime_core.sessions.store import StoredSessions

T = TypeVar("T")

store_option = click.option("--store", default="sqlite:///agentflow.sqlite", show_default=True, help="The run store.")
scope_option = click.option("--scope", default="default", show_default=True, help="Whose sessions.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@click.group("sessions")
def command() -> None:
    """List, show and delete what flows remember (`memory: session`)."""


@command.command("list")
@store_option
@scope_option
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="Show the latest so many.")
@json_option
def list_sessions(store: str, scope: str, limit: int, as_json: bool) -> int:
    """List sessions, the one that was written to last first."""
    sessions, more = _ask(store, lambda kept: _latest(kept, scope, limit))
    if as_json:
        click.echo(json.dumps({"sessions": [each.model_dump() for each in sessions], "more": more}, indent=2))
        return Exit.OK
    for each in sessions:
        click.echo(f"{_time(each.updated_at)}  {each.version:5} records  {each.size_bytes:8} bytes  {each.session_id}")
    if more:
        click.echo("there are more; show them with --limit", err=True)
    if not sessions:
        click.echo(f"the scope {scope} has no sessions there", err=True)
    return Exit.OK


@command.command("show")
@click.argument("session_id")
@store_option
@scope_option
@json_option
def show_session(session_id: str, store: str, scope: str, as_json: bool) -> int:
    """Show what was said in the session SESSION_ID."""
    info, found = _ask(store, lambda kept: _all_of(kept, scope, session_id))
    if info is None:
        return _absent(session_id, scope)
    if as_json:
        records = [record.model_dump(mode="json") for record in found.records]
        click.echo(json.dumps({**info.model_dump(), "version": found.version, "records": records}, indent=2))
    else:
        for record in found.records:
            click.echo(_line(record))
    return Exit.OK


@command.command("delete")
@click.argument("session_id")
@store_option
@scope_option
def delete_session(session_id: str, store: str, scope: str) -> int:
    """Forget the session SESSION_ID."""
    if not _ask(store, lambda kept: kept.delete(scope_id=scope, session_id=session_id)):
        return _absent(session_id, scope)
    click.echo(f"deleted {session_id}")
    return Exit.OK


def _ask(url: str, question: Callable[[StoredSessions], Awaitable[T]]) -> T:
    """The answer of the sessions in a run store. Raises StoreError; a store in a file must be there already."""
    from runtime_core.clock import SystemClock
    from runtime_core.sessions.store import StoredSessions
    from runtime_core.stores.url import open_database, sqlite_path

    if url == "memory:":
        raise click.BadParameter(
            "sessions in memory are known to their app only; ask it over HTTP", param_hint="--store"
        )
    if url.startswith("sqlite:") and not sqlite_path(url).is_file():
        raise click.BadParameter(f"there is no file {sqlite_path(url)}", param_hint="--store")

    async def ask() -> T:
        async with open_database(url) as database:
            sessions = StoredSessions(database, clock=SystemClock())
            await sessions.prepare()
            return await question(sessions)

    return asyncio.run(ask())


async def _latest(kept: StoredSessions, scope: str, limit: int) -> tuple[list[SessionInfo], bool]:
    """At most `limit` sessions, and whether there are more."""
    found: list[SessionInfo] = []
    after: SessionCursor | None = None
    while len(found) < limit:
        page = await kept.list(scope_id=scope, after=after, limit=min(limit - len(found), 1000))
        found += page.sessions
        if (after := page.next) is None:
            return found, False
    return found, True


async def _all_of(kept: StoredSessions, scope: str, session_id: str) -> tuple[SessionInfo | None, SessionRead]:
    info = await kept.info(scope_id=scope, session_id=session_id)
    return info, await kept.read(scope_id=scope, session_id=session_id)


def _absent(session_id: str, scope: str) -> int:
    click.echo(f"error: the scope {scope} has no session {session_id}", err=True)
    return Exit.FAILED


def _line(record: SessionRecord) -> str:
    """A turn as a line of text; what a model or a user wrote must not steer the terminal."""
    calls = f" {json.dumps(record.tool_calls)}" if record.tool_calls else ""
    text = "".join(char if char.isprintable() or char in "\n\t" else "?" for char in record.text)
    return f"{record.role:9}  {text}{calls}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
