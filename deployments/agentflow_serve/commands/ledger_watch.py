"""The live view of a ledger: it asks again and again, and shows what has changed."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import click

from agent_runtime.ledger.attempts import AttemptPage
from agent_runtime.ledger.finds import EventFilter
from agent_runtime.ledger.standing import BudgetFilter, BudgetPage
from agent_runtime.ledger.usage import GroupBy, GroupPage
from agent_runtime.ledger.view import LedgerView
from agentflow_serve.commands.ledger_tables import attempts_table, budgets_table, moment, money, notes, usage_table
from agentflow_serve.ledger_documents import usage_document
from runtime_core.clock import Clock
from runtime_core.errors import StoreUnavailableError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

Form = Literal["screen", "lines", "json"]
GROUPS, BUDGETS, ATTEMPTS = 10, 10, 10
"""Lines of each table on the screen."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is watched."""

    scope_id: str
    which: EventFilter
    by: GroupBy


@dataclass(frozen=True, slots=True)
class Look:
    usage: GroupPage
    budgets: BudgetPage
    attempts: AttemptPage


async def watch(view: LedgerView, seen: Seen, *, form: Form, every_s: float, looks: int | None, clock: Clock) -> None:
    """Until it is cancelled, or after so many `looks`. A store that does not answer is asked again the next time."""
    with ExitStack() as stack:
        live = stack.enter_context(_screen()) if form == "screen" else None
        before: Look | None = None
        done = 0
        while True:
            try:
                found = await _look(view, seen)
            except StoreUnavailableError as exc:
                click.echo(f"the store does not answer: {exc}", err=True)
            else:
                if found != before:
                    _show(found, seen, form, live, clock)
                before = found
            done += 1
            if done == looks:
                return
            await clock.sleep(every_s)


async def _look(view: LedgerView, seen: Seen) -> Look:
    scope_id, which = seen.scope_id, seen.which
    whose = BudgetFilter(which.principal_id, which.role, which.run_id)
    return Look(
        await view.usage(scope_id=scope_id, which=which, by=seen.by, limit=GROUPS),
        await view.budgets(scope_id=scope_id, which=whose, limit=BUDGETS),
        await view.attempts(scope_id=scope_id, which=which, limit=ATTEMPTS),
    )


def _show(found: Look, seen: Seen, form: Form, live: Live | None, clock: Clock) -> None:
    if live is not None:
        live.update(_tables(found, seen), refresh=True)
        return
    if form == "json":
        click.echo(json.dumps(usage_document(seen.scope_id, seen.which, seen.by, found.usage)))
        return
    total = found.usage.total
    said = f"; {told}" if (told := notes(total)) else ""
    click.echo(
        f"{moment(clock.now())}  {total.requests:,} calls  {total.input_tokens:,} + {total.output_tokens:,} tokens"
        f"  {money(total.cost_micro)}{said}"
    )


def _tables(found: Look, seen: Seen) -> RenderableType:
    from rich.console import Group

    tables: list[RenderableType] = [
        usage_table(seen.by, found.usage.total, found.usage.groups, more=found.usage.next is not None)
    ]
    if found.budgets.budgets:
        tables.append(budgets_table(found.budgets.budgets))
    return Group(*tables, attempts_table(found.attempts.attempts))


def _screen() -> Live:
    from rich.console import Console
    from rich.live import Live

    return Live(console=Console(markup=False, highlight=False, emoji=False), auto_refresh=False, screen=True)
