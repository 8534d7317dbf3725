"""`agentflow actions`: what the flows of a run store ask people, and the answers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agentflow_serve.commands.exits import Exit
from agentflow_serve.commands.paging import MORE, after_option, limit_option, place_of
from agentflow_serve.commands.stores import (
    ask,
    canonical,
    json_option,
    printable,
    scope_option,
    show_json,
    store_url,
    utc,
    where,
)

if TYPE_CHECKING:
    from agent_runtime.actions.manager import ActionManager
    from agent_runtime.actions.records import ActionRecord
    from agent_runtime.actions.store import ActionCursor
    from runtime_core.stores.database import Database

T = TypeVar("T")

STATES = ("pending", "resolved", "expired", "cancelled")


@click.group("actions")
def command() -> None:
    """List, show and answer what flows ask people (`action.require`)."""


@command.command("list")
@where
@scope_option
@click.option("--status", type=click.Choice((*STATES, "all")), default="pending", show_default=True)
@limit_option
@after_option
@json_option
def list_actions(
    config: Path | None, store: str | None, scope: str, status: str, limit: int, after: str | None, as_json: bool
) -> int:
    """List actions, the newest first."""
    from agentflow_serve.action_documents import action_cursor, actions_document

    place = place_of(after, action_cursor)
    found = _ask(store_url(config, store), scope, lambda actions: _latest(actions, status, place, limit + 1))
    if as_json:
        show_json(actions_document(found, limit))
        return Exit.OK
    for each in found[:limit]:
        click.echo(_line(each))
    if len(found) > limit:
        click.echo(MORE, err=True)
    if not found:
        click.echo(f"the scope {scope} has no{'' if status == 'all' else f' {status}'} actions there", err=True)
    return Exit.OK


@command.command("show")
@click.argument("action_id")
@where
@scope_option
@json_option
def show_action(action_id: str, config: Path | None, store: str | None, scope: str, as_json: bool) -> int:
    """Show what the action ACTION_ID asks, and its answer if there is one."""
    action_id = canonical(action_id, "ACTION_ID")
    action = _ask(store_url(config, store), scope, lambda actions: actions.get(action_id))
    if as_json:
        show_json(action.model_dump(mode="json"))
        return Exit.OK
    click.echo(_line(action))
    click.echo(f"asks      {printable(json.dumps(action.payload, ensure_ascii=False))}")
    if action.resolution is not None:
        by = f" (by {printable(action.resolved_by)})" if action.resolved_by else ""
        click.echo(f"answered  {printable(json.dumps(action.resolution, ensure_ascii=False))}{by}")
    return Exit.OK


@command.command("resolve")
@click.argument("action_id")
@where
@scope_option
@click.option("--approve", "grants", flag_value=True, type=bool, default=None, help='Answer {"approved": true}.')
@click.option("--reject", "grants", flag_value=False, type=bool, help='Answer {"approved": false}.')
@click.option("--resolution", metavar="JSON", help="Answer this JSON object.")
@click.option("--by", metavar="NAME", help="Who answers, for the record.")
def resolve_action(
    action_id: str,
    config: Path | None,
    store: str | None,
    scope: str,
    grants: bool | None,
    resolution: str | None,
    by: str | None,
) -> int:
    """Answer the action ACTION_ID. The first answer counts, and whoever waits for it goes on within a second."""
    action_id = canonical(action_id, "ACTION_ID")
    answer = _answer(grants, resolution)
    by = None if by is None else canonical(by, "--by")
    _ask(
        store_url(config, store),
        scope,
        lambda actions: actions.resolve(action_id=action_id, resolution=answer, resolved_by=by),
    )
    click.echo(f"resolved {action_id}")
    return Exit.OK


def _answer(grants: bool | None, resolution: str | None) -> dict[str, Any]:
    if (grants is None) == (resolution is None):
        raise click.UsageError("answer with --approve, --reject or --resolution JSON")
    if resolution is None:
        return {"approved": grants}
    try:
        answer = json.loads(resolution, parse_constant=_no_number)
    except ValueError as exc:
        raise click.BadParameter(f"that is no JSON: {exc}", param_hint="--resolution") from exc
    if not isinstance(answer, dict):
        raise click.BadParameter("an answer is a JSON object", param_hint="--resolution")
    return answer


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


def _ask(url: str, scope: str, question: Callable[[ActionManager], Awaitable[T]]) -> T:
    """The answer of one scope's actions in a run store. Raises click.ClickException, StoreError."""
    from agent_runtime.errors import ActionError

    async def answer(database: Database) -> T:
        from agent_runtime.actions.manager import ActionManager
        from agent_runtime.actions.sql_store import SqlActionStore

        return await question(ActionManager(SqlActionStore(database), scope_id=canonical(scope, "--scope")))

    try:
        return ask(url, answer)
    except ActionError as exc:
        raise click.ClickException(str(exc)) from exc


async def _latest(actions: ActionManager, status: str, after: ActionCursor | None, limit: int) -> list[ActionRecord]:
    from agent_runtime.actions.records import ActionStatus
    from agent_runtime.actions.store import ActionFilter

    which = ActionFilter(status=None if status == "all" else ActionStatus(status))
    return await actions.list(which, after=after, limit=limit)


def _line(action: ActionRecord) -> str:
    until = "" if action.expires_at is None else f"  until {utc(action.expires_at.timestamp())}"
    kind = printable(action.type)
    return f"{action.action_id}  {utc(action.created_at.timestamp())}  {action.status.value:9}  {kind}{until}"
