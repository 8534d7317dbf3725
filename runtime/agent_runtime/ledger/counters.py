"""Which budgets apply, and the counters of what they have seen.

A counter is exact once it is there: it is made from the events of its window, and every entry knows the counters that
it is in, also those that were made after it. Without a budget there is no counter, and an entry is only its own row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from itertools import chain, product
from operator import add
from typing import TypeAlias, TypeVar

from agent_runtime.ledger.amounts import MEASURES, NOTHING
from agent_runtime.ledger.budgets import Account, Budget, Limit
from agent_runtime.ledger.decide import Applying, Check, Counter, Rules
from agent_runtime.ledger.schema import COUNTS, RESERVED, SPENT, TAKEN
from agent_runtime.ledger.windows import COUNTED, Window, begins_at, ends_at, period, periods
from runtime_core.stores.sql import TEXT, WHOLE, Op, Rows, Sql, SqlValue, with_rows

T = TypeVar("T")

MOST_ANCESTORS = 16
"""Runs above a run that count what it spends."""

Place: TypeAlias = tuple[str, ...]
"""Which counter of a scope: its principal, role, run and period."""
Changes: TypeAlias = dict[str, tuple[int, ...]]
"""By how much the counters of such places change, in the order of COUNTS; the places are as an entry keeps them."""
_Whose: TypeAlias = tuple[str, str, str]
"""The principal, role and run of a budget."""

# Each of these is read at its one place in the index; IN would build a table of them first, which costs more.
_WITH_COUNTERS = (
    "SELECT b.principal_id, b.role, b.run_id, b.parent_run_id, b.removed, b.budget, c.period, "
    + ", ".join("c." + name for name in (*SPENT, *RESERVED))
    + " FROM {accounts} ledger_budgets b LEFT JOIN ledger_counters c ON c.scope_id = b.scope_id"
    " AND c.principal_id = b.principal_id AND c.role = b.role AND c.run_id = b.run_id AND c.period IN (?, ?, ?, ?)"
    " WHERE b.scope_id = ?"
)
_APPLYING = (
    "WITH a (principal_id, role, run_id) AS (VALUES {rows}) "
    + _WITH_COUNTERS.replace("{accounts}", "a CROSS JOIN")
    + " AND b.principal_id = a.principal_id AND b.role = a.role AND b.run_id = a.run_id"
)
_ABOVE = (
    "WITH RECURSIVE chain (run_id, parent_run_id, depth) AS ("
    " SELECT run_id, parent_run_id, 1 FROM ledger_budgets"
    " WHERE scope_id = ? AND principal_id = '' AND role = '' AND run_id = ?"
    " UNION ALL SELECT b.run_id, b.parent_run_id, c.depth + 1 FROM chain c JOIN ledger_budgets b ON b.scope_id = ?"
    " AND b.principal_id = '' AND b.role = '' AND b.run_id = c.parent_run_id"
    f" WHERE c.parent_run_id <> '' AND c.depth < {MOST_ANCESTORS}) "
    + _WITH_COUNTERS.replace("{accounts}", "")
    + " AND b.principal_id IN ('', ?) AND b.role IN ('', ?) AND b.run_id IN (SELECT run_id FROM chain)"
)
_COUNT = "UPDATE ledger_counters SET {changes} WHERE {places}"
# With the scope in each of them SQLite looks them up one by one; with one scope outside it reads all that it has.
_PLACE = "(scope_id = ? AND principal_id = ? AND role = ? AND run_id = ? AND period = ?)"
_COUNT_EACH = (
    "UPDATE ledger_counters SET "
    + ", ".join(f"{name} = {name} + c.column{number}" for number, name in enumerate((*SPENT, *RESERVED), 5))
    + " FROM (VALUES {rows}) AS c WHERE scope_id = ? AND principal_id = c.column1 AND role = c.column2"
    " AND run_id = c.column3 AND period = c.column4"
)
_CHANGE = (*[TEXT] * 4, *[WHOLE] * 2 * len(MEASURES))
_NEW_COUNTER = (
    "INSERT INTO ledger_counters (scope_id, principal_id, role, run_id, period, ends_at, " + COUNTS + ")"
    " VALUES (?, ?, ?, ?, ?, ?, " + ", ".join("?" * 2 * len(MEASURES)) + ")"
)
_OPEN = "CASE WHEN state = 'reserved' THEN {} ELSE 0 END"
_ENDED = "CASE WHEN state IN ('settled', 'unknown', 'released') THEN {} ELSE 0 END"
_SUMS = ", ".join(
    [f"COALESCE(SUM({_ENDED.format(name)}), 0)" for name in TAKEN]
    + [f"COALESCE(SUM({_OPEN.format(name)}), 0)" for name in RESERVED]
)
_SO_FAR = "SELECT " + _SUMS + " FROM runtime_ledger WHERE "
_COUNTED_TOO = (
    "UPDATE runtime_ledger SET counted = counted || ? WHERE (state = 'reserved' OR (state = 'unknown' AND lapsed = 1))"
    " AND "
)
_WIDTH = len(MEASURES)
_FEW = 8
"""Counters that a statement names one by one: a list would be made into a table first, which costs more."""
_MOST_COUNTED = 1024
"""Counters of one statement: databases bound how many parameters it has."""


def applying(account: Account, at: int) -> Op[list[Applying]]:
    """The budgets that apply to what the account uses at that second, with their counters."""
    return (yield from applying_to((account,), at))[account]


def applying_to(accounts: Collection[Account], at: int) -> Op[dict[Account, list[Applying]]]:
    """`applying` for accounts of one scope. Those under the same budget have the same object of it."""
    scope_id, names = next(iter(accounts)).scope_id, periods(at)
    around = {account: _around(account) for account in accounts}
    asked = _filled(list(dict.fromkeys(chain.from_iterable(around.values()))))
    rows = yield Sql(with_rows(_APPLYING, "???", len(asked)), (*chain.from_iterable(asked), *names, scope_id))
    if not rows:
        return {account: [] for account in accounts}
    found: dict[_Whose, Applying] = {}
    parents = _read(rows, scope_id, at // 60, found)
    for account in around if parents else ():
        if parent := parents.get(account.run_id):
            who = (account.principal_id, account.role)
            rows = yield Sql(_ABOVE, (scope_id, parent, scope_id, *names, scope_id, *who))
            _read(rows, scope_id, at // 60, found)
            above = (row[:3] for row in rows)
            around[account] = tuple(dict.fromkeys((*around[account], *above)))  # runs may be each other's parents
    for budget in found.values():
        for name, window in budget.rules.periods:
            if name not in budget.counters:
                budget.counters[name] = yield from _so_far(budget.account, window, at)
                budget.fresh.append(name)
    return {account: [found[each] for each in whose if each in found] for account, whose in around.items()}


@lru_cache(maxsize=1024)
def _around(account: Account) -> tuple[_Whose, ...]:
    """The account and all that contain it, without the runs above its own."""
    principals, roles, runs = (
        ("", part) if part else ("",) for part in (account.principal_id, account.role, account.run_id)
    )
    return tuple(product(principals, roles, runs))


def _read(rows: Rows, scope_id: str, minute: int, found: dict[_Whose, Applying]) -> dict[str, str]:
    """Add to what was `found`; the runs whose budgets were added, with their parents."""
    parents: dict[str, str] = {}
    for row in rows:
        whose = row[:3]
        if whose not in found:
            (principal_id, role, run_id), (parent, removed, budget) = whose, row[3:6]
            rules = _rules("" if removed else budget, minute, bool(run_id))
            found[whose] = Applying(Account(scope_id, principal_id, role, run_id), rules, {})
            if parent and not (principal_id or role):
                parents[run_id] = parent
        name = row[6]
        if name is not None:
            found[whose].counters[name] = Counter(row[7 : 7 + _WIDTH], row[7 + _WIDTH :])
    return parents


@lru_cache(maxsize=4096)
def _rules(budget: str, minute: int, of_run: bool) -> Rules:
    """`budget` as it is stored, empty for one that was removed.

    A run's total is counted from its first budget on, limited or not: it is also what the runs below it have used.
    """
    limits = _limits_of(budget) if budget else ()
    windows = {limit.window for limit in limits} - {Window.REQUEST} | ({Window.TOTAL} if of_run else set())
    names = {window: period(window, minute * 60) for window in sorted(windows)}
    checks = [Check(limit, MEASURES.index(limit.measure), names.get(limit.window)) for limit in limits]
    return Rules(tuple(checks), tuple((name, window) for window, name in names.items()))


@lru_cache(maxsize=1024)
def _limits_of(budget: str) -> tuple[Limit, ...]:
    """Of a stored budget. Kept, because every call asks for the same few."""
    return Budget.model_validate_json(budget).limits()


def _so_far(account: Account, window: Window, at: int) -> Op[Counter]:
    """A new counter, of what the account's events add up to."""
    clauses, params = _in_window(account, window, at)
    [sums] = yield Sql(_SO_FAR + clauses, params)
    numbers = tuple(int(each) for each in sums)
    return Counter(numbers[:_WIDTH], numbers[_WIDTH:])


def _in_window(account: Account, window: Window, at: int) -> tuple[str, tuple[SqlValue, ...]]:
    """The account's own events in the window that `at` is in."""
    begin, end = begins_at(window, at), ends_at(window, at)
    # By the index on `timestamp`, which a database may have rounded up into the next second.
    text, params = "scope_id = ? AND timestamp >= ? AND at_second >= ?", [account.scope_id, begin, begin]
    for clause, value in (
        (" AND timestamp <= ?", end),
        (" AND at_second < ?", end),
        (" AND principal_id = ?", account.principal_id or None),
        (" AND role = ?", account.role or None),
        (" AND run_id = ?", account.run_id or None),
    ):
        if value is not None:
            text += clause
            params.append(value)
    return text, tuple(params)


def store_fresh(budget: Applying, at: int) -> Op[None]:
    """Store the counters that `applying` had to make; whoever is in one and has not ended learns of it."""
    account = budget.account
    for window in COUNTED:
        name = period(window, at)
        if name in budget.fresh:
            counter, scope_id = budget.counters[name], account.scope_id
            place = (*account[1:], name)
            counts = (*counter.spent, *counter.reserved)
            yield Sql(_NEW_COUNTER, (scope_id, *place, ends_at(window, at), *counts), counts=True)
            clauses, params = _in_window(account, window, at)
            yield Sql(_COUNTED_TOO + clauses, (counted_in([place]), *params), counts=True)
    budget.fresh.clear()


def all_counted(budgets: Iterable[Applying]) -> str:
    """All their counters, as an entry keeps them."""
    return counted_in([(*budget.account[1:], name) for budget in budgets for name in budget.counters])


def counted_in(places: Iterable[Place]) -> str:
    """As an entry keeps it. No part of a place has a control character in it."""
    return "".join(["\t".join(place) + "\n" for place in places])


@lru_cache(maxsize=1024)
def places_in(counted: str) -> tuple[Place, ...]:
    """Of lines, each once: a counter that was forgotten and made again is noted twice."""
    return tuple(dict.fromkeys(tuple(line.split("\t")) for line in counted.splitlines()))


def change(changes: Changes, counted: str, by: tuple[int, ...]) -> None:
    """Add to what is to be counted."""
    before = changes.get(counted)
    changes[counted] = by if before is None else tuple(map(add, before, by))


def count(scope_id: str, counted: str, by: tuple[int, ...]) -> Op[None]:
    """Change what an entry is counted in, where it is still there, by numbers in the order of COUNTS."""
    number, places = _named(scope_id, counted)
    if 0 < number <= _FEW:
        spends = any(by[:_WIDTH])
        yield Sql(_alike(number, spends), (*(by if spends else by[_WIDTH:]), *places), counts=True)
    else:
        yield from _count_each(scope_id, {counted: by})


def count_all(scope_id: str, changes: Changes) -> Op[None]:
    """`count` for each."""
    if len(changes) == 1:
        [(counted, by)] = changes.items()
        yield from count(scope_id, counted, by)
    else:
        yield from _count_each(scope_id, changes)


def _count_each(scope_id: str, changes: Changes) -> Op[None]:
    """Told in one order, as far as databases follow it: two transactions that change the same counters should wait for
    each other only one way.
    """
    each: dict[Place, tuple[int, ...]] = {}
    for counted, by in changes.items():
        for place in places_in(counted):
            each[place] = tuple(map(add, each[place], by)) if place in each else by
    ordered = sorted(each.items())
    for begin in range(0, len(ordered), _MOST_COUNTED):
        told = _filled(ordered[begin : begin + _MOST_COUNTED])
        params = chain.from_iterable((*place, *by) for place, by in told)
        yield Sql(with_rows(_COUNT_EACH, _CHANGE, len(told)), (*params, scope_id), counts=True)


@lru_cache(maxsize=1024)
def _named(scope_id: str, counted: str) -> tuple[int, tuple[str, ...]]:
    """How many places it has, and one after the other, each with its scope; none where no budget counts."""
    places = _filled(sorted(places_in(counted)))
    return len(places), tuple(chain.from_iterable((scope_id, *place) for place in places))


@lru_cache(maxsize=16)
def _alike(places: int, spends: bool) -> str:
    """Changes so many counters by the same; without `spends`, what is reserved alone."""
    changed = ", ".join(f"{name} = {name} + ?" for name in ((*SPENT, *RESERVED) if spends else RESERVED))
    return _COUNT.format(changes=changed, places=" OR ".join([_PLACE] * places))


def shift_reserved(scope_id: str, counted: str, tokens: int, cost_micro: int) -> Op[None]:
    """Change what an entry holds back, wherever it is `counted`."""
    by = {"tokens": tokens, "cost_micro": cost_micro}
    reserved = tuple(by.get(measure, 0) for measure in MEASURES)
    yield from count(scope_id, counted, (*NOTHING, *reserved))


def _filled(items: Sequence[T]) -> Sequence[T]:
    """With its last one repeated up to a power of two: databases then see few texts."""
    missing = (1 << (len(items) - 1).bit_length()) - len(items) if items else 0
    return [*items, *[items[-1]] * missing] if missing else items
