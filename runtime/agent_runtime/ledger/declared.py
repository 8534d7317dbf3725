"""Budgets that a document declares, kept in step with it: set, changed and removed as the document is.

For each one the store remembers what was declared last. A budget that is declared anew, or differently, is set; one
that is not declared any more is removed. What somebody else has set stays: budgets that no document named, and one
that was changed by hand after it was declared, until the document says something new about it. One that another
document declares as well stays too: of two that declare different limits for the same, the last one to say
something new counts, which is told in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agent_runtime.ledger import budget_ops
from agent_runtime.ledger.budgets import Account, Budget
from agent_runtime.ledger.schema import MIGRATIONS
from agent_runtime.repeat import until_known
from runtime_core.clock import Clock
from runtime_core.errors import StoreError
from runtime_core.ids import IdSource
from runtime_core.stores.database import Database
from runtime_core.stores.migrations import Migration, migrate
from runtime_core.stores.scope import everywhere, in_scope
from runtime_core.stores.sql import Op, Sql

logger = logging.getLogger(__name__)

DECLARED = (
    Migration(
        version=1,
        statements=(
            "CREATE TABLE ledger_declared (scope_id {text} NOT NULL, principal_id {text} NOT NULL,"
            " role {text} NOT NULL, source {text} NOT NULL, budget {text} NOT NULL,"
            " PRIMARY KEY (scope_id, principal_id, role, source))",
            "CREATE INDEX ledger_declared_source ON ledger_declared (source)",
        ),
    ),
    Migration(version=2, scoped=("ledger_declared",)),
)
_DECLARED = "SELECT scope_id, principal_id, role, budget FROM ledger_declared WHERE source = ?"
_STORED = (
    "SELECT budget FROM ledger_budgets WHERE scope_id = ? AND principal_id = ? AND role = ? AND run_id = ''"
    " AND removed = 0"
)
_REMEMBER = (
    "INSERT INTO ledger_declared (scope_id, principal_id, role, source, budget) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (scope_id, principal_id, role, source) DO UPDATE SET budget = excluded.budget"
)
_OTHERS = "SELECT 1 FROM ledger_declared WHERE scope_id = ? AND principal_id = ? AND role = ? AND source <> ?"
_FORGET_ALL = "DELETE FROM ledger_declared WHERE scope_id = ? AND principal_id = ? AND role = ?"
_FORGET = _FORGET_ALL + " AND source = ?"
_DISPUTED = (
    "SELECT one.scope_id, one.principal_id, one.role, one.source, other.source FROM ledger_declared AS one"
    " JOIN ledger_declared AS other ON other.scope_id = one.scope_id AND other.principal_id = one.principal_id"
    " AND other.role = one.role AND other.source > one.source AND other.budget <> one.budget"
    " WHERE {whose} ORDER BY one.scope_id, one.principal_id, one.role, one.source, other.source LIMIT ?"
)
_MOST_DISPUTES = 100


@dataclass(frozen=True, slots=True)
class Declared:
    """What a declaration changed in the store."""

    set: tuple[Account, ...] = ()
    removed: tuple[Account, ...] = ()


@dataclass(frozen=True, slots=True)
class Dispute:
    """Two documents that declare different limits for the same account; those that were declared last hold."""

    account: Account
    sources: tuple[str, str]

    def __str__(self) -> str:
        one, other = self.sources
        return (
            f"{one} and {other} declare different budgets for {self.account} of {self.account.scope_id}: the one that "
            "was declared last holds; declare it in one of them"
        )


async def declare_budgets(
    database: Database, source: str, budgets: Sequence[Budget], *, clock: Clock, ids: IdSource
) -> Declared:
    """Make the store hold what `source`, such as an app, declares now; again, or by several at once, changes nothing.

    Raises errors of the StoreError tree.
    """
    await migrate(database, "runtime_ledger", MIGRATIONS)
    await migrate(database, "ledger_declared", DECLARED)
    declaration, now = ids.new("evt"), clock.now().timestamp()
    declare = everywhere(lambda: _declare(source, budgets, declaration, now))  # a source has budgets of any scope
    done = await until_known(lambda: database.run(declare), clock)
    await _tell_disputes(database, source)
    return done


async def _tell_disputes(database: Database, source: str) -> None:
    about_it = everywhere(lambda: _disputes("(one.source = ? OR other.source = ?)", source, source))
    try:
        for dispute in await database.read(about_it):
            logger.warning("%s", dispute)
    except StoreError:  # what was declared holds
        logger.warning("it is not known whether budgets of %s are disputed", source, exc_info=True)


async def disputes(database: Database, scope_id: str) -> list[Dispute]:
    """Those over the budgets of a scope. Raises errors of the StoreError tree."""
    await migrate(database, "ledger_declared", DECLARED)
    return await database.read(in_scope(scope_id, lambda: _disputes("one.scope_id = ?", scope_id)))


async def forget_declared(database: Database, account: Account) -> None:
    """Whoever declared the account's budget has not, until it starts again: the way out where an app is gone.

    Raises errors of the StoreError tree.
    """
    await migrate(database, "ledger_declared", DECLARED)
    await database.run(in_scope(account.scope_id, lambda: _forget_all(account)))


def _forget_all(account: Account) -> Op[None]:
    yield Sql(_FORGET_ALL, _place(account), counts=True)


def _disputes(whose: str, *values: str) -> Op[list[Dispute]]:
    rows = yield Sql(_DISPUTED.format(whose=whose), (*values, _MOST_DISPUTES))
    return [Dispute(Account(*place), (one, other)) for *place, one, other in rows]


def _declare(source: str, budgets: Sequence[Budget], declaration: str, now: float) -> Op[Declared]:
    rows = yield Sql(_DECLARED, (source,))
    before = {
        Account(scope, principal, role): Budget.model_validate_json(text) for scope, principal, role, text in rows
    }
    wanted = {budget.account: budget for budget in budgets}
    events = (f"{declaration}-{number}" for number in range(len(before) + len(wanted)))
    removed: list[Account] = []
    for account, budget in before.items():
        if account in wanted:
            continue
        others = yield Sql(_OTHERS, (*_place(account), source))
        if not others and (yield from _stored(account)) == budget:
            yield from budget_ops.remove_budget(account, next(events), now)
            removed.append(account)
        yield Sql(_FORGET, (*_place(account), source), counts=True)
    changed: list[Account] = []
    for account, budget in wanted.items():
        if before.get(account) == budget and (yield from _stored(account)) is not None:
            continue
        yield from budget_ops.set_budget(budget, next(events), now)
        text = budget.model_dump_json(exclude_none=True)
        yield Sql(_REMEMBER, (*_place(account), source, text), counts=True)
        changed.append(account)
    return Declared(_sorted(changed), _sorted(removed))


def _stored(account: Account) -> Op[Budget | None]:
    rows = yield Sql(_STORED, _place(account))
    return Budget.model_validate_json(rows[0][0]) if rows else None


def _place(account: Account) -> tuple[str, str, str]:
    return (account.scope_id, account.principal_id, account.role)


def _sorted(accounts: Iterable[Account]) -> tuple[Account, ...]:
    return tuple(sorted(accounts, key=_place))
