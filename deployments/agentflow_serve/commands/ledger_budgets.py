"""`agentflow ledger budgets`: how every budget stands, and the ones that operators set."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from agentflow_serve.commands.exits import Exit
from agentflow_serve.commands.paging import MORE, after_option, limit_option, place_of
from agentflow_serve.commands.stores import (
    ask,
    canonical,
    canonical_id,
    json_option,
    printable,
    scope_option,
    show_json,
    store_url,
    where,
)

if TYPE_CHECKING:
    from agent_runtime.ledger.budgets import Budget
    from agent_runtime.ledger.declared import Dispute
    from agent_runtime.ledger.ledger import Ledger
    from agent_runtime.ledger.standing import BudgetPage
    from runtime_core.stores.database import Database

T = TypeVar("T")


def whose(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say for whom, within the scope."""
    for option in (
        click.option("--run", callback=canonical_id, help="A single run."),
        click.option("--role", callback=canonical_id, help="A role."),
        click.option("--principal", callback=canonical_id, help="A principal."),
        scope_option,
        where,
    ):
        command = option(command)
    return command


@click.group("budgets", invoke_without_command=True)
@whose
@click.option("--runs", is_flag=True, help="Those of single runs too.")
@limit_option
@after_option
@json_option
@click.pass_context
def budgets(
    context: click.Context,
    config: Path | None,
    store: str | None,
    scope: str,
    principal: str | None,
    role: str | None,
    run: str | None,
    runs: bool,
    limit: int,
    after: str | None,
    as_json: bool,
) -> int | None:
    """Show what every budget has spent, holds reserved and has left in its window."""
    if context.invoked_subcommand is not None:
        _no_options_before(context)
        return None
    from agent_runtime.ledger.declared import disputes
    from agent_runtime.ledger.standing import BudgetFilter
    from agent_runtime.ledger.view import LedgerView
    from agentflow_serve.ledger_documents import budget_cursor, budgets_document

    scope = canonical(scope, "--scope")
    which = BudgetFilter(principal_id=principal, role=role, run_id=run, runs=runs)
    place = place_of(after, lambda text: budget_cursor(text, scope))

    async def look(database: Database) -> tuple[BudgetPage, list[Dispute]]:
        page = await LedgerView(database).budgets(scope_id=scope, which=which, after=place, limit=limit)
        return page, await disputes(database, scope)

    page, disputed = ask(store_url(config, store), look)
    for each in disputed:
        click.echo(f"warning: {printable(str(each))}", err=True)
    if as_json:
        show_json(budgets_document(scope, page))
        return Exit.OK
    if page.budgets:
        from agentflow_serve.commands.ledger_tables import budgets_table, show

        show(budgets_table(page.budgets))
    else:
        click.echo(f"the scope {scope} has no such budget there; agentflow ledger budgets set makes one", err=True)
    if page.next is not None:
        click.echo(MORE, err=True)
    return Exit.OK


@budgets.command("set")
@click.argument("limits", nargs=-1, required=True, metavar="LIMIT=AMOUNT...")
@whose
def set_budget(
    limits: tuple[str, ...],
    config: Path | None,
    store: str | None,
    scope: str,
    principal: str | None,
    role: str | None,
    run: str | None,
) -> int:
    """Set the limits of a budget, in place of those that it had. What was used before counts.

    A LIMIT is max_tokens, max_cost (dollars), max_requests, max_tool_calls, max_turns or max_runtime_seconds, and over
    what it counts: _per_request, _per_minute, _daily, _monthly or _total. For example max_cost_daily=5.
    """
    budget = _budget(scope, principal, role, run, limits)
    _with_ledger(store_url(config, store), lambda ledger: ledger.set_budget(budget), make=True)
    click.echo(f"set {', '.join(sorted(limits))} for {_name(budget)}")
    return Exit.OK


@budgets.command("remove")
@whose
def remove_budget(
    config: Path | None, store: str | None, scope: str, principal: str | None, role: str | None, run: str | None
) -> int:
    """Remove a budget with all its limits. An app that declares it sets it again when it starts."""
    from agent_runtime.ledger.declared import forget_declared

    budget, url = _budget(scope, principal, role, run, ()), store_url(config, store)
    removed = _with_ledger(url, lambda ledger: ledger.remove_budget(budget))
    if run is None:
        ask(url, lambda database: forget_declared(database, budget.account))
    if not removed:
        click.echo(f"error: there is no budget for {_name(budget)}", err=True)
        return Exit.FAILED
    click.echo(f"removed the budget for {_name(budget)}")
    return Exit.OK


def _no_options_before(context: click.Context) -> None:
    """`budgets --scope acme set ...` would set another scope's budget. Raises click.UsageError."""
    for name in context.params:
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"write options after `{context.invoked_subcommand}`")


def _budget(scope: str, principal: str | None, role: str | None, run: str | None, limits: tuple[str, ...]) -> Budget:
    """Raises click.BadParameter for limits that no budget has, and for a scope that is not in its one spelling."""
    from pydantic import ValidationError

    from agent_runtime.ledger.budgets import Budget

    given: dict[str, Any] = {}
    for each in limits:
        name, equals, amount = each.partition("=")
        if not equals or name in given:
            raise click.BadParameter(f"write each limit once, as max_cost_daily=5; not {each!r}", param_hint="LIMIT")
        if not name.startswith("max_") or name not in Budget.model_fields:
            raise click.BadParameter(f"there is no limit {name!r}; --help says how they are called", param_hint="LIMIT")
        given[name] = int(amount) if amount.isascii() and amount.isdigit() and len(amount) < 20 else amount
    place = {"scope_id": canonical(scope, "--scope"), "principal_id": principal, "role": role, "run_id": run}
    try:
        return Budget.model_validate({**place, **given})
    except ValidationError as exc:
        problem = exc.errors()[0]
        raise click.BadParameter(f"{problem['loc'][0]}: {problem['msg']}", param_hint="LIMIT") from exc


def _with_ledger(url: str, do: Callable[[Ledger], Awaitable[T]], *, make: bool = False) -> T:
    async def answer(database: Database) -> T:
        from agent_runtime.ledger.ledger import Ledger
        from agent_runtime.ledger.writers import SqlLedgerWriter

        return await do(Ledger(SqlLedgerWriter(database)))

    return ask(url, answer, make=make)


def _name(budget: Budget) -> str:
    return f"{budget.account} of {budget.scope_id}"
