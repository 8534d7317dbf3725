"""What happens in the ledger, as operations: the log of model calls runs them in one transaction with its own.

A transaction is serializable, so what it reads still holds when it writes: budgets and counters are read, `decide`
says whether the reservation fits, and only then anything changes. A refusal is a result, not an error, because an
error would undo the transactions that share its commit.

A counter is exact once it is there: it is made from the events of its window, and every entry knows the counters that
it is in, also those that were made after it. Without a budget there is no counter, and an entry is only its own row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from itertools import chain, product
from typing import Any, TypeAlias

from agent_runtime.ledger.amounts import MEASURES, NOTHING
from agent_runtime.ledger.budgets import Account, Budget, Limit
from agent_runtime.ledger.decide import Applying, Counter, Refusal, Wanted, decide, other_limits
from agent_runtime.ledger.records import HOLD, REFUSED, Entry, EventState, LedgerEvent, Used
from agent_runtime.ledger.schema import (
    COUNTS,
    ENTRY_COLUMNS,
    ENTRY_VALUES,
    EVENT_COLUMNS,
    RESERVED,
    SPENT,
    STATE,
    TAKEN,
    event_of,
    values_of,
)
from agent_runtime.ledger.windows import COUNTED, Window, begins_at, ends_at, period, periods
from runtime_core.errors import StoreConflictError
from runtime_core.stores.sql import Op, Sql, SqlValue

MOST_ANCESTORS = 16
"""Runs above a run that count what it spends."""

Row: TypeAlias = tuple[Any, ...]
"""Of EVENT_COLUMNS."""
Place: TypeAlias = tuple[str, ...]
"""Which counter of a scope: its principal, role, run and period."""

# Each of these is read at its one place in the index; IN would build a table of them first, which costs more.
_WITH_COUNTERS = (
    "SELECT b.principal_id, b.role, b.run_id, b.parent_run_id, b.removed, b.budget, c.period, "
    + ", ".join("c." + name for name in (*SPENT, *RESERVED))
    + " FROM {accounts} ledger_budgets b LEFT JOIN ledger_counters c ON c.scope_id = b.scope_id"
    " AND c.principal_id = b.principal_id AND c.role = b.role AND c.run_id = b.run_id AND c.period IN (?, ?, ?, ?)"
    " WHERE b.scope_id = ?"
)
_APPLYING = (
    "WITH a (principal_id, role, run_id) AS (VALUES {values}) "
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
_ENTER = (
    "INSERT INTO runtime_ledger (" + ENTRY_COLUMNS + ") VALUES (" + ENTRY_VALUES + ")"
    " ON CONFLICT (scope_id, event_id) DO NOTHING"
)
_COUNT = (
    "UPDATE ledger_counters SET "
    + ", ".join(f"{name} = {name} + ?" for name in (*SPENT, *RESERVED))
    + " WHERE scope_id = ? AND "
)
_NEW_COUNTER = (
    "INSERT INTO ledger_counters (scope_id, principal_id, role, run_id, period, ends_at, " + COUNTS + ")"
    " VALUES (?, ?, ?, ?, ?, ?, " + ", ".join("?" * 2 * len(MEASURES)) + ")"
)
_FULL = EVENT_COLUMNS + ", " + ", ".join(RESERVED) + ", counted"
_END = (
    "UPDATE runtime_ledger SET state = ?, ended_at = ?, input_tokens = ?, output_tokens = ?, estimated = ?, lapsed = ?,"
    + ", ".join(f" {taken} = COALESCE(?, {held})" for taken, held in zip(TAKEN, RESERVED, strict=True))
    + " WHERE scope_id = ? AND event_id = ? AND state = ? AND lapsed = ? RETURNING "
    + _FULL
)
_FIND = "SELECT " + EVENT_COLUMNS + " FROM runtime_ledger WHERE scope_id = ? AND event_id = ?"
_HELD = (
    "SELECT at_second, principal_id, role, run_id, "
    + ", ".join(RESERVED)
    + " FROM runtime_ledger WHERE scope_id = ? AND event_id = ?"
)
_LAPSING = (
    "SELECT scope_id, event_id FROM runtime_ledger"
    " WHERE state = 'reserved' AND lease_until <= ? ORDER BY lease_until LIMIT ?"
)
_RENEW = (
    "UPDATE runtime_ledger SET lease_until = CASE WHEN lease_until < ? THEN ? ELSE lease_until END"
    " WHERE scope_id = ? AND event_id = ? AND state = 'reserved' RETURNING event_id"
)
_UNSAID = (None,) * len(MEASURES)
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
_NOTE = (
    "INSERT INTO runtime_ledger (scope_id, event_id, type, state, timestamp, at_second, principal_id, role, run_id,"
    " detail) VALUES (?, ?, ?, 'noted', ?, ?, ?, ?, ?, ?) ON CONFLICT (scope_id, event_id) DO NOTHING"
)


def applying(account: Account, at: int) -> Op[list[Applying]]:
    """The budgets that apply to what the account uses at that second, with their counters."""
    scope_id, run_id, names = account.scope_id, account.run_id, periods(at)
    accounts = list(product(*(("", part) if part else ("",) for part in (account.principal_id, account.role, run_id))))
    rows = yield Sql(_applying_sql(len(accounts)), (*chain.from_iterable(accounts), *names, scope_id))
    if not rows:
        return []
    parent = next((row[3] for row in rows if row[2] and not (row[0] or row[1])), "")
    if parent:
        rows += yield Sql(_ABOVE, (scope_id, parent, scope_id, *names, scope_id, account.principal_id, account.role))
    return (yield from _budgets(scope_id, rows, at))


def _budgets(scope_id: str, rows: Iterable[Row], at: int) -> Op[list[Applying]]:
    found: dict[Account, tuple[tuple[Limit, ...], dict[str, Counter]]] = {}
    width = len(MEASURES)
    for principal_id, role, run_id, _, removed, budget, name, *counts in rows:
        account = Account(scope_id, principal_id, role, run_id)
        _, counters = found.setdefault(account, (() if removed else _limits_of(budget), {}))
        if name is not None:
            counters[name] = Counter(tuple(counts[:width]), tuple(counts[width:]))
    budgets: list[Applying] = []
    for account, (limits, counters) in found.items():
        fresh = yield from _uncounted(account, limits, counters, at)
        budgets.append(Applying(account, limits, {**counters, **fresh}, frozenset(fresh)))
    return budgets


def check(account: Account, wanted: Wanted) -> Op[Refusal | None]:
    """What `reserve` would say."""
    return decide((yield from applying(account, wanted.at)), wanted)


def reserve(entry: Entry) -> Op[Refusal | None]:
    """Hold back the most that the entry may take, if every budget has room for it; an entry again changes nothing.

    Raises StoreConflictError if the id is another entry's.
    """
    at = int(entry.at)
    budgets = yield from applying(entry.account, at)
    refusal = None
    if entry.bounded_by is not None:
        refusal = other_limits(budgets, entry.bounded_by, entry.account)
    refusal = refusal or decide(budgets, Wanted(entry.most, at, entry.priced, whole_run=entry.type == HOLD))
    if refusal is not None:
        if (yield from _is_there(entry)):
            return None
        if refusal.bounding is None:
            yield from _note_refusal(entry, refusal)
        return refusal
    yield from _enter(entry, budgets)
    return None


def record(entry: Entry, used: Used) -> Op[Row]:
    """What was used already and cannot be refused any more, as an event; the same id again changes nothing."""
    yield from _enter(entry, (yield from applying(entry.account, int(entry.at))))
    row = yield from end(entry.scope_id, entry.event_id, used)
    assert row is not None, "an entry that was entered"
    return row


def end(scope_id: str, event_id: str, used: Used) -> Op[Row | None]:
    """Give back what was held, and count what was used; the event as it now is, None if there is no such entry.

    The first ending wins, except over a lapsed lease, which was a guess.
    """
    row = yield from _end(scope_id, event_id, used)
    if row is None:
        rows = yield Sql(_FIND, (scope_id, event_id))
        row = rows[0] if rows else None
        if row is not None and row[STATE] == "unknown":
            return (yield from _end(scope_id, event_id, used, late=True)) or row
    return row


def lapse(scope_id: str, event_id: str, now: float) -> Op[Row | None]:
    """Nobody ended the entry: it is unknown, and counts as the most that it may have taken. None if it has ended."""
    return (yield from _end(scope_id, event_id, Used(EventState.UNKNOWN, now, None, estimated=True), lapsed=True))


def _end(scope_id: str, event_id: str, used: Used, *, late: bool = False, lapsed: bool = False) -> Op[Row | None]:
    """Of an entry that is reserved; `late`, of one whose lease has lapsed. None if there is none."""
    facts = (used.state.value, used.at, used.input_tokens, used.output_tokens, int(used.estimated))
    actual = _UNSAID if used.actual is None else used.actual.values()
    was = ("unknown", 1) if late else ("reserved", 0)
    rows = yield Sql(_END, (*facts, int(late or lapsed), *actual, scope_id, event_id, *was))
    if not rows:
        return None
    *event, counted = rows[0]
    held = tuple(event[-len(MEASURES) :])
    if counted:
        taken = held if used.actual is None else used.actual.values()
        spent = tuple(new - old for new, old in zip(taken, held, strict=True)) if late else taken
        yield from _count(scope_id, _places_in(counted), spent, NOTHING.values() if late else _minus(held))
    return tuple(event[: -len(MEASURES)])


def expire(now: float, limit: int) -> Op[list[LedgerEvent]]:
    """`lapse` for up to `limit` entries of all scopes whose own lease has run out."""
    rows = yield Sql(_LAPSING, (now, limit))
    ended: list[LedgerEvent] = []
    for scope_id, event_id in rows:
        row = yield from lapse(scope_id, event_id, now)
        if row is not None:
            ended.append(event_of(row))
    return ended


def renew(scope_id: str, event_id: str, lease_until: float) -> Op[bool]:
    """Move the lease forward, never back; False if the entry is not reserved any more."""
    return bool((yield Sql(_RENEW, (lease_until, lease_until, scope_id, event_id))))


def note(account: Account, event_id: str, kind: str, at: float, detail: str) -> Op[None]:
    """An audit event, once."""
    yield Sql(
        _NOTE,
        (
            account.scope_id,
            event_id,
            kind,
            round(at, 6),
            int(at),
            account.principal_id,
            account.role,
            account.run_id,
            detail,
        ),
    )


def make_counters(budget: Applying, at: int) -> Op[None]:
    """Store the counters that `applying` had to make; whoever is in one and has not ended learns of it."""
    account = budget.account
    place = (account.principal_id, account.role, account.run_id)
    for window in COUNTED if budget.fresh else ():
        name = period(window, at)
        if name in budget.fresh:
            counter, scope_id = budget.counters[name], account.scope_id
            counts = (*counter.spent, *counter.reserved)
            yield Sql(_NEW_COUNTER, (scope_id, *place, name, ends_at(window, at), *counts), counts=True)
            clauses, params = _in_window(account, window, at)
            yield Sql(_COUNTED_TOO + clauses, (_line((*place, name)), *params), counts=True)


def _enter(entry: Entry, budgets: Sequence[Applying]) -> Op[None]:
    """Write the entry as reserved, and count it."""
    at = int(entry.at)
    for budget in budgets:
        yield from make_counters(budget, at)
    places = list(_places_of(budgets))
    values = values_of(entry, "".join(map(_line, places)), at)
    [(written,)] = yield Sql(_ENTER, values, counts=True)
    if not written:
        yield from _is_there(entry)
        return
    yield from _count(entry.scope_id, places, NOTHING.values(), entry.most.values())


def _places_of(budgets: Iterable[Applying]) -> Iterator[Place]:
    for budget in budgets:
        account = budget.account
        for name in budget.counters:
            yield (account.principal_id, account.role, account.run_id, name)


def _line(place: Place) -> str:
    """No part of a place has a control character in it."""
    return "\t".join(place) + "\n"


@lru_cache(maxsize=1024)
def _places_in(counted: str) -> tuple[Place, ...]:
    """Of lines, each once: a counter that was forgotten and made again is noted twice."""
    return tuple(dict.fromkeys(tuple(line.split("\t")) for line in counted.splitlines()))


@lru_cache(maxsize=1024)
def _limits_of(budget: str) -> tuple[Limit, ...]:
    """Of a stored budget. Kept, because every call asks for the same few."""
    return Budget.model_validate_json(budget).limits()


def _uncounted(
    account: Account, limits: Sequence[Limit], counters: Mapping[str, Counter], at: int
) -> Op[dict[str, Counter]]:
    """Counters for the limited windows that have none, from what the account's events add up to.

    A run's total is counted from its first budget on, limited or not: it is also what the runs below it have used.
    """
    found: dict[str, Counter] = {}
    windows = {limit.window for limit in limits} - {Window.REQUEST} | ({Window.TOTAL} if account.run_id else set())
    for window in sorted(windows):
        name = period(window, at)
        if name not in counters:
            found[name] = yield from _so_far(account, window, at)
    return found


def _so_far(account: Account, window: Window, at: int) -> Op[Counter]:
    clauses, params = _in_window(account, window, at)
    [sums] = yield Sql(_SO_FAR + clauses, params)
    numbers = tuple(int(each) for each in sums)
    return Counter(numbers[: len(MEASURES)], numbers[len(MEASURES) :])


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


def shift_reserved(scope_id: str, counted: str, tokens: int, cost_micro: int) -> Op[None]:
    """Change what an entry holds back, wherever it is `counted`."""
    change = {"tokens": tokens, "cost_micro": cost_micro}
    reserved = [change.get(measure, 0) for measure in MEASURES]
    yield from _count(scope_id, _places_in(counted), NOTHING.values(), reserved)


def _count(scope_id: str, places: Sequence[Place], spent: Sequence[int], reserved: Sequence[int]) -> Op[None]:
    """Change those counters, where they are still there."""
    if places:
        params = (*spent, *reserved, scope_id, *chain.from_iterable(places))
        yield Sql(_count_sql(len(places)), params, counts=True)


@cache
def _applying_sql(accounts: int) -> str:
    return _APPLYING.replace("{values}", ", ".join(["(?, ?, ?)"] * accounts))


@lru_cache(maxsize=256)
def _count_sql(places: int) -> str:
    if places == 1:
        return _COUNT + "principal_id = ? AND role = ? AND run_id = ? AND period = ?"
    values = ", ".join(["(?, ?, ?, ?)"] * places)
    return _COUNT + f"(principal_id, role, run_id, period) IN (VALUES {values})"


def _is_there(entry: Entry) -> Op[bool]:
    """Whether the entry was entered before. Raises StoreConflictError if its id is another one's."""
    rows = yield Sql(_HELD, (entry.scope_id, entry.event_id))
    if not rows:
        return False
    at, principal_id, role, run_id, *held = rows[0]
    account = Account(entry.scope_id, principal_id, role, run_id)
    if (at, account, tuple(held)) != (int(entry.at), entry.account, entry.most.values()):
        raise StoreConflictError(f"Event {entry.event_id!a} is another event of the ledger already; use a new id.")
    return True


def _note_refusal(entry: Entry, refusal: Refusal) -> Op[None]:
    """The first one of each limit and window: those who knock again must not fill the table."""
    when = period(Window.DAY if refusal.window is Window.REQUEST else refusal.window, int(entry.at))
    account = refusal.account
    parts = (account.principal_id, account.role, account.run_id, refusal.limit, refusal.reason, when)
    yield from note(account, f"{REFUSED} {json.dumps(parts)}", REFUSED, entry.at, refusal.message)


def _minus(amounts: Sequence[int]) -> tuple[int, ...]:
    return tuple(-amount for amount in amounts)
