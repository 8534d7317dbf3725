"""`agentflow ledger`: what was spent and by whom, every attempt at a model, and how budgets stand."""

from __future__ import annotations

import csv
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agentflow_serve.commands.exits import Exit
from agentflow_serve.commands.ledger_budgets import budgets
from agentflow_serve.commands.paging import MORE, after_option, limit_option, place_of
from agentflow_serve.commands.stores import (
    ask,
    canonical,
    canonical_id,
    json_option,
    scope_option,
    show_json,
    store_url,
    where,
)
from agentflow_serve.durations import FORMS, moment_of

if TYPE_CHECKING:
    from agent_runtime.ledger.finds import EventFilter
    from agent_runtime.ledger.view import LedgerView
    from runtime_core.stores.database import Database

T = TypeVar("T")

# As the ledger has them; importing it would cost every completion.
STATUSES = ("reserved", "settled", "released", "unknown")
GROUPS = ("role", "principal", "run", "model", "day", "hour")


def _moment(_context: click.Context, option: click.Parameter, text: str | None) -> datetime | None:
    if text is None:
        return None
    found = moment_of(text, now=datetime.now(UTC))
    if found is None:
        example = "2026-01-31 or 2026-01-31T12:00:00Z"
        raise click.BadParameter(f"write {FORMS}, such as 2h, or a time, such as {example}", param=option)
    return found


def filters(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which events; they arrive as `which`."""

    @wraps(command)
    def filtered(
        principal: str | None,
        role: str | None,
        run: str | None,
        since: datetime | None,
        until: datetime | None,
        **options: Any,
    ) -> Any:
        from agent_runtime.ledger.finds import EventFilter

        which = EventFilter(principal_id=principal, role=role, run_id=run, since=since, until=until)
        return command(which=which, **options)

    for option in (
        click.option("--until", callback=_moment, help="Only what began before then, in the same forms."),
        click.option("--since", callback=_moment, help="Only what began then or later: 2h, 1d, or a time in ISO 8601."),
        click.option("--run", callback=canonical_id, help="Only this run."),
        click.option("--role", callback=canonical_id, help="Only this role."),
        click.option("--principal", callback=canonical_id, help="Only this principal."),
    ):
        filtered = option(filtered)
    return filtered


by_option = click.option("--by", type=click.Choice(GROUPS), default="role", show_default=True, help="A line for each.")


@click.group("ledger")
def command() -> None:
    """What was spent, by whom, and what the budgets leave."""


command.add_command(budgets)


@command.command("usage")
@where
@scope_option
@by_option
@limit_option
@after_option
@json_option
@filters
def usage(
    config: Path | None,
    store: str | None,
    scope: str,
    by: str,
    limit: int,
    after: str | None,
    as_json: bool,
    which: EventFilter,
) -> int:
    """Show what was used: calls, tokens and money, with what is open, unknown or estimated told apart."""
    from agent_runtime.ledger.usage import GroupBy
    from agentflow_serve.ledger_documents import group_cursor, usage_document

    group_by = GroupBy(by)
    place = place_of(after, lambda text: group_cursor(text, group_by))
    scope = canonical(scope, "--scope")
    page = look(
        store_url(config, store),
        lambda view: view.usage(scope_id=scope, which=which, by=group_by, after=place, limit=limit),
    )
    if as_json:
        show_json(usage_document(scope, which, group_by, page))
    elif page.total.events or page.total.holds:
        from agentflow_serve.commands.ledger_tables import show, usage_table

        show(usage_table(group_by, page.total, page.groups, more=page.next is not None or place is not None))
    else:
        click.echo(f"the scope {scope} has used nothing there in that time", err=True)
    return Exit.OK


@command.command("attempts")
@where
@scope_option
@click.option("--status", type=click.Choice(STATUSES), help="Only those that ended so, or have not ended (reserved).")
@limit_option
@after_option
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print all of them as CSV, whatever --limit says.")
@filters
def attempts(
    config: Path | None,
    store: str | None,
    scope: str,
    status: str | None,
    limit: int,
    after: str | None,
    as_json: bool,
    as_csv: bool,
    which: EventFilter,
) -> int:
    """Show attempts at models, the newest first: each with its status, tokens, money and time."""
    from agent_runtime.ledger.records import EventState
    from agentflow_serve.ledger_documents import attempt_cursor, attempts_document

    if as_csv and as_json:
        raise click.UsageError("give --csv or --json, not both")
    scope = canonical(scope, "--scope")
    which = replace(which, state=None if status is None else EventState(status))
    place = place_of(after, attempt_cursor)
    url = store_url(config, store)
    if as_csv:
        look(url, lambda view: _write_csv(view, scope, which))
        return Exit.OK
    page = look(url, lambda view: view.attempts(scope_id=scope, which=which, after=place, limit=limit))
    if as_json:
        show_json(attempts_document(scope, page))
        return Exit.OK
    if page.attempts:
        from agentflow_serve.commands.ledger_tables import attempts_table, show

        show(attempts_table(page.attempts))
    else:
        click.echo(f"the scope {scope} has made no such attempt there", err=True)
    if page.next is not None:
        click.echo(f"{MORE}; --csv prints all of them", err=True)
    return Exit.OK


@command.command("watch")
@where
@scope_option
@by_option
@click.option(
    "--every", default=2.0, show_default=True, type=click.FloatRange(0.1, 3600), help="Seconds between looks."
)
@click.option("--looks", type=click.IntRange(1), help="Leave after so many looks. [default: at Ctrl-C]")
@json_option
@filters
def watch(
    config: Path | None,
    store: str | None,
    scope: str,
    by: str,
    every: float,
    looks: int | None,
    as_json: bool,
    which: EventFilter,
) -> int:
    """Keep showing usage, budgets and the latest attempts; Ctrl-C leaves.

    Without a terminal it prints a line for each change, with --json a document for each.
    """
    from agent_runtime.ledger.usage import GroupBy
    from agentflow_serve.commands import ledger_watch
    from runtime_core.clock import SystemClock

    scope = canonical(scope, "--scope")
    form = "json" if as_json else "screen" if sys.stdout.isatty() else "lines"
    seen = ledger_watch.Seen(scope, which, GroupBy(by))
    with suppress(KeyboardInterrupt):
        look(
            store_url(config, store),
            lambda view: ledger_watch.watch(view, seen, form=form, every_s=every, looks=looks, clock=SystemClock()),
        )
    return Exit.OK


def look(url: str, question: Callable[[LedgerView], Awaitable[T]]) -> T:
    """What the ledger of a run store says."""

    async def answer(database: Database) -> T:
        from agent_runtime.ledger.view import LedgerView

        return await question(LedgerView(database))

    return ask(url, answer)


async def _write_csv(view: LedgerView, scope: str, which: EventFilter) -> None:
    """A page at a time, so that a store of any size can be written."""
    from agent_runtime.ledger.attempts import AttemptLine
    from agent_runtime.ledger.export import cell
    from agentflow_serve.cursors import MOST_AT_ONCE

    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(AttemptLine.model_fields)
    after = None
    while True:
        page = await view.attempts(scope_id=scope, which=which, after=after, limit=MOST_AT_ONCE)
        for line in page.attempts:
            rows.writerow(cell(value) for value in line.model_dump(mode="json").values())
        if (after := page.next) is None:
            return
