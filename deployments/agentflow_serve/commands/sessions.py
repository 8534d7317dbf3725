"""`agentflow sessions`: what a run store remembers of the sessions of one scope."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from agentflow_serve.commands.exits import Exit
from agentflow_serve.commands.stores import (
    ask,
    json_option,
    printable,
    scope_option,
    show_json,
    store_url,
    utc,
    where,
)

if TYPE_CHECKING:
    from runtime_core.sessions.catalog import SessionCursor, SessionInfo
    from runtime_core.sessions.protocol import SessionRead
    from runtime_core.sessions.records import SessionRecord
    from runtime_core.sessions.store import StoredSessions
    from runtime_core.stores.database import Database

T = TypeVar("T")


@click.group("sessions")
def command() -> None:
    """List, show and delete what flows remember (`memory: session`)."""


@command.command("list")
@where
@scope_option
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="Show the latest so many.")
@json_option
def list_sessions(config: Path | None, store: str | None, scope: str, limit: int, as_json: bool) -> int:
    """List sessions, the one that was written to last first."""
    sessions, more = _ask(store_url(config, store), lambda kept: _latest(kept, scope, limit))
    if as_json:
        show_json({"sessions": [each.model_dump() for each in sessions], "more": more})
        return Exit.OK
    for each in sessions:
        click.echo(f"{utc(each.updated_at)}  {each.version:5} records  {each.size_bytes:8} bytes  {each.session_id}")
    if more:
        click.echo("there are more; show them with --limit", err=True)
    if not sessions:
        click.echo(f"the scope {scope} has no sessions there", err=True)
    return Exit.OK


@command.command("show")
@click.argument("session_id")
@where
@scope_option
@json_option
def show_session(session_id: str, config: Path | None, store: str | None, scope: str, as_json: bool) -> int:
    """Show what was said in the session SESSION_ID."""
    info, found = _ask(store_url(config, store), lambda kept: _all_of(kept, scope, session_id))
    if info is None:
        return _absent(session_id, scope)
    if as_json:
        records = [record.model_dump(mode="json") for record in found.records]
        show_json({**info.model_dump(), "version": found.version, "records": records})
    else:
        for record in found.records:
            click.echo(_line(record))
    return Exit.OK


@command.command("delete")
@click.argument("session_id")
@where
@scope_option
def delete_session(session_id: str, config: Path | None, store: str | None, scope: str) -> int:
    """Forget the session SESSION_ID."""
    if not _ask(store_url(config, store), lambda kept: kept.delete(scope_id=scope, session_id=session_id)):
        return _absent(session_id, scope)
    click.echo(f"deleted {session_id}")
    return Exit.OK


def _ask(url: str, question: Callable[[StoredSessions], Awaitable[T]]) -> T:
    async def answer(database: Database) -> T:
        from runtime_core.clock import SystemClock
        from runtime_core.sessions.store import StoredSessions

        sessions = StoredSessions(database, clock=SystemClock())
        await sessions.prepare()
        return await question(sessions)

    return ask(url, answer)


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
    return f"{record.role:9}  {printable(record.text)}{calls}"
