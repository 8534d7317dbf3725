"""What happens in the ledger, as operations: the log of model calls runs them in one transaction with its own.

A transaction is serializable, so what it reads still holds when it writes: budgets and counters are read, `decide`
says whether the reservation fits, and only then anything changes. A refusal is a result, not an error, because an
error would undo the transactions that share its commit.

A counter is exact once it is there: it is made from the events of its window, and every entry changes all counters
that there are for its account, limited or not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache

from agent_runtime.ledger.amounts import MEASURES, NOTHING
from agent_runtime.ledger.budgets import Account, Budget, Limit
from agent_runtime.ledger.decide import Applying, Counter, Refusal, Wanted, decide
from agent_runtime.ledger.records import HOLD, REFUSED, Entry, EventState, LedgerEvent, Used
from agent_runtime.ledger.schema import (
    COUNTS,
    ENTRY_COLUMNS,
    ENTRY_VALUES,
    EVENT_COLUMNS,
    RESERVED,
    SPENT,
    TAKEN,
    event_of,
    values_of,
)
from agent_runtime.ledger.windows import COUNTED, FOR_EVER, Window, begins_at, ends_at, period, periods
from runtime_core.errors import StoreConflictError
from runtime_core.stores.sql import Op, Sql, SqlValue

MOST_ANCESTORS = 16
"""Runs above a run that count what it spends."""

_APPLYING = (
    "WITH RECURSIVE chain (run_id, parent_run_id, depth) AS ("
    " SELECT run_id, parent_run_id, 0 FROM ledger_budgets"
    " WHERE scope_id = ? AND principal_id = '' AND role = '' AND run_id = ? AND run_id <> ''"
    " UNION ALL SELECT b.run_id, b.parent_run_id, c.depth + 1 FROM chain c JOIN ledger_budgets b ON b.scope_id = ?"
    " AND b.principal_id = '' AND b.role = '' AND b.run_id = c.parent_run_id"
    f" WHERE c.parent_run_id <> '' AND c.depth < {MOST_ANCESTORS})"
    " SELECT b.principal_id, b.role, b.run_id, b.budget, c.period, "
    + ", ".join("c." + name for name in (*SPENT, *RESERVED))
    + " FROM ledger_budgets b LEFT JOIN ledger_counters c ON c.scope_id = b.scope_id"
    " AND c.principal_id = b.principal_id AND c.role = b.role AND c.run_id = b.run_id AND c.period IN (?, ?, ?, ?)"
    " WHERE b.scope_id = ? AND b.principal_id IN ('', ?) AND b.role IN ('', ?)"
    " AND (b.run_id IN ('', ?) OR b.run_id IN (SELECT run_id FROM chain))"
)
_ENTER = (
    "INSERT INTO runtime_ledger (" + ENTRY_COLUMNS + ") VALUES (" + ENTRY_VALUES + ")"
    " ON CONFLICT (scope_id, event_id) DO NOTHING"
)
_MORE = ", ".join(f"{name} = {name} + ?" for name in (*SPENT, *RESERVED))
_COUNT = (
    "UPDATE ledger_counters SET " + _MORE + " WHERE scope_id = ? AND principal_id IN ('', ?) AND role IN ('', ?)"
    " AND period IN (?, ?, ?, ?) AND run_id IN ('', "
)
_NEW_COUNTER = (
    "INSERT INTO ledger_counters (scope_id, principal_id, role, run_id, period, ends_at, " + COUNTS + ")"
    " VALUES (?, ?, ?, ?, ?, ?, " + ", ".join("?" * 2 * len(MEASURES)) + ")"
)
_END = (
    "UPDATE runtime_ledger SET state = ?, ended_at = ?, input_tokens = ?, output_tokens = ?, estimated = ?, lapsed = ?,"
    + ", ".join(f" {name} = ?" for name in TAKEN)
    + " WHERE scope_id = ? AND event_id = ?"
)
_FIND = "SELECT " + EVENT_COLUMNS + " FROM runtime_ledger WHERE scope_id = ? AND event_id = ?"
_HELD = (
    "SELECT state, lapsed, at_second, principal_id, role, run_id, runs, " + ", ".join(RESERVED) + ""
    " FROM runtime_ledger WHERE scope_id = ? AND event_id = ?"
)
_LAPSING = (
    "SELECT scope_id, event_id FROM runtime_ledger"
    " WHERE state = 'reserved' AND lease_until <= ? ORDER BY lease_until LIMIT ?"
)
_RENEW = (
    "UPDATE runtime_ledger SET lease_until = ? WHERE scope_id = ? AND event_id = ? AND state = 'reserved'"
    " AND lease_until < ?"
)
_OPEN = "CASE WHEN state = 'reserved' THEN {} ELSE 0 END"
_ENDED = "CASE WHEN state IN ('settled', 'unknown', 'released') THEN {} ELSE 0 END"
_SUMS = ", ".join(
    [f"COALESCE(SUM({_ENDED.format(name)}), 0)" for name in TAKEN]
    + [f"COALESCE(SUM({_OPEN.format(name)}), 0)" for name in RESERVED]
)
_SO_FAR = "SELECT " + _SUMS + " FROM runtime_ledger WHERE scope_id = ? AND at_second >= ? AND at_second < ?"
_NOTE = (
    "INSERT INTO runtime_ledger (scope_id, event_id, type, state, timestamp, at_second, principal_id, role, run_id,"
    " runs, detail) VALUES (?, ?, ?, 'noted', ?, ?, ?, ?, ?, '[]', ?) ON CONFLICT (scope_id, event_id) DO NOTHING"
)


def applying(account: Account, at: int) -> Op[list[Applying]]:
    """The budgets that apply to what the account uses at that second, with their counters."""
    scope_id, run_id = account.scope_id, account.run_id
    rows = yield Sql(
        _APPLYING,
        (scope_id, run_id, scope_id, *periods(at), scope_id, account.principal_id, account.role, run_id),
    )
    found: dict[Account, tuple[str, dict[str, Counter]]] = {}
    width = len(MEASURES)
    for principal_id, role, run, budget, name, *counts in rows:
        _, counters = found.setdefault(Account(scope_id, principal_id, role, run), (budget, {}))
        if name is not None:
            counters[name] = Counter(tuple(counts[:width]), tuple(counts[width:]))
    budgets: list[Applying] = []
    for each, (budget, counters) in found.items():
        limits = _limits_of(budget)
        fresh = yield from _uncounted(each, limits, counters, at)
        budgets.append(Applying(each, limits, {**counters, **fresh}, frozenset(fresh)))
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
    refusal = decide(budgets, Wanted(entry.most, at, entry.priced, whole_run=entry.type == HOLD))
    if refusal is not None:
        if (yield from _is_there(entry)):
            return None
        yield from _note_refusal(entry, refusal)
        return refusal
    yield from _enter(entry, budgets)
    return None


def record(entry: Entry, used: Used) -> Op[None]:
    """What was used already and cannot be refused any more; the same id again changes nothing."""
    yield from _enter(entry, (yield from applying(entry.account, int(entry.at))))
    yield from end(entry.scope_id, entry.event_id, used)


def end(scope_id: str, event_id: str, used: Used) -> Op[bool]:
    """Give back what was held, and count what was used; False if there is no such entry.

    The first ending wins, except over a lapsed lease, which was a guess.
    """
    rows = yield Sql(_HELD, (scope_id, event_id))
    if not rows:
        return False
    state, lapsed, at, principal_id, role, run_id, runs, *held = rows[0]
    late = state == "unknown" and bool(lapsed)
    if state == "reserved" or late:
        taken = tuple(held) if used.actual is None else used.actual.values()
        spent = tuple(new - old for new, old in zip(taken, held, strict=True)) if late else taken
        account = Account(scope_id, principal_id, role, run_id)
        yield from _count(account, json.loads(runs), at, spent, (0,) * len(held) if late else _minus(held))
        yield from _write_end(scope_id, event_id, used, taken, lapsed=late)
    return True


def lapse(scope_id: str, event_id: str, now: float) -> Op[None]:
    """Nobody ended the entry: it is unknown, and counts as the most that it may have taken."""
    rows = yield Sql(_HELD, (scope_id, event_id))
    if not rows or rows[0][0] != "reserved":
        return
    _, _, at, principal_id, role, run_id, runs, *held = rows[0]
    yield from _count(Account(scope_id, principal_id, role, run_id), json.loads(runs), at, tuple(held), _minus(held))
    used = Used(EventState.UNKNOWN, now, None, estimated=True)
    yield from _write_end(scope_id, event_id, used, held, lapsed=True)


def expire(now: float, limit: int) -> Op[list[LedgerEvent]]:
    """`lapse` for up to `limit` entries of all scopes whose own lease has run out."""
    rows = yield Sql(_LAPSING, (now, limit))
    ended: list[LedgerEvent] = []
    for scope_id, event_id in rows:
        yield from lapse(scope_id, event_id, now)
        event = yield from find(scope_id, event_id)
        if event is not None:
            ended.append(event)
    return ended


def renew(scope_id: str, event_id: str, lease_until: float) -> Op[bool]:
    """Move the lease forward, never back; False if the entry is not reserved any more."""
    yield Sql(_RENEW, (lease_until, scope_id, event_id, lease_until), counts=True)
    rows = yield Sql(_HELD, (scope_id, event_id))
    return bool(rows) and rows[0][0] == "reserved"


def find(scope_id: str, event_id: str) -> Op[LedgerEvent | None]:
    rows = yield Sql(_FIND, (scope_id, event_id))
    return event_of(rows[0]) if rows else None


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
    """Store the counters that `applying` had to make."""
    account = budget.account
    place = (account.scope_id, account.principal_id, account.role, account.run_id)
    for window in COUNTED:
        name = period(window, at)
        if name in budget.fresh:
            counter = budget.counters[name]
            yield Sql(_NEW_COUNTER, (*place, name, ends_at(window, at), *counter.spent, *counter.reserved))


def _enter(entry: Entry, budgets: Sequence[Applying]) -> Op[None]:
    """Write the entry as reserved, and count it."""
    at = int(entry.at)
    runs = sorted({budget.account.run_id for budget in budgets if budget.account.run_id})
    [(written,)] = yield Sql(_ENTER, values_of(entry, json.dumps(runs), at), counts=True)
    if not written:
        yield from _is_there(entry)
        return
    for budget in budgets:
        yield from make_counters(budget, at)
    yield from _count(entry.account, runs, at, NOTHING.values(), entry.most.values())


@lru_cache(maxsize=1024)
def _limits_of(budget: str) -> tuple[Limit, ...]:
    """Of a stored budget. Kept, because every call asks for the same few."""
    return Budget.model_validate_json(budget).limits()


def _uncounted(
    account: Account, limits: Sequence[Limit], counters: Mapping[str, Counter], at: int
) -> Op[dict[str, Counter]]:
    """Counters for the limited windows that have none, from what the account's events add up to."""
    found: dict[str, Counter] = {}
    for window in sorted({limit.window for limit in limits} - {Window.REQUEST}):
        name = period(window, at)
        if name not in counters:
            found[name] = yield from _so_far(account, window, at)
    return found


def _so_far(account: Account, window: Window, at: int) -> Op[Counter]:
    text, end = _SO_FAR, ends_at(window, at)
    params: list[SqlValue] = [account.scope_id, begins_at(window, at), FOR_EVER if end is None else end]
    for clause, value in (
        (" AND principal_id = ?", account.principal_id),
        (" AND role = ?", account.role),
        (" AND run_id = ?", account.run_id),
    ):
        if value:
            text += clause
            params.append(value)
    [sums] = yield Sql(text, tuple(params))
    numbers = tuple(int(each) for each in sums)
    return Counter(numbers[: len(MEASURES)], numbers[len(MEASURES) :])


def _count(account: Account, runs: Sequence[str], at: int, spent: Sequence[int], reserved: Sequence[int]) -> Op[None]:
    """Change every counter of an account that contains this one, in the windows that `at` is in."""
    chain = sorted({account.run_id, *runs})
    params: tuple[SqlValue, ...] = (*spent, *reserved, account.scope_id, account.principal_id, account.role)
    yield Sql(_COUNT + ", ".join("?" * len(chain)) + ")", (*params, *periods(at), *chain), counts=True)


def _write_end(scope_id: str, event_id: str, used: Used, taken: Sequence[int], *, lapsed: bool) -> Op[None]:
    facts = (used.state.value, used.at, used.input_tokens, used.output_tokens, int(used.estimated), int(lapsed))
    yield Sql(_END, (*facts, *taken, scope_id, event_id), counts=True)


def _is_there(entry: Entry) -> Op[bool]:
    """Whether the entry was entered before. Raises StoreConflictError if its id is another one's."""
    rows = yield Sql(_HELD, (entry.scope_id, entry.event_id))
    if not rows:
        return False
    _, _, at, principal_id, role, run_id, _, *held = rows[0]
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
