"""What happens in the ledger, as operations: the log of model calls runs them in one transaction with its own.

A transaction is serializable, so what it reads still holds when it writes: budgets and counters are read, `decide`
says whether the reservation fits, and only then anything changes. A refusal is a result, not an error, because an
error would undo the transactions that share its commit.

Reservations of many callers are one operation: budgets are read once, and each holds back what the next one does not
find any more.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain
from operator import neg, sub
from typing import Any, TypeAlias

from agent_runtime.ledger.amounts import MEASURES, NOTHING
from agent_runtime.ledger.budgets import Account
from agent_runtime.ledger.counters import (
    Changes,
    all_counted,
    applying,
    applying_to,
    change,
    count,
    count_all,
    store_fresh,
)
from agent_runtime.ledger.decide import Applying, Refusal, Wanted, decide, other_limits
from agent_runtime.ledger.records import HOLD, REFUSED, Entry, EventState, LedgerEvent, Used
from agent_runtime.ledger.schema import (
    ENTRY_COLUMNS,
    EVENT_COLUMNS,
    HELD_COLUMNS,
    RESERVED,
    STATE,
    TAKEN,
    ended_row,
    event_of,
    values_of,
)
from agent_runtime.ledger.windows import Window, period
from runtime_core.errors import StoreConflictError
from runtime_core.stores.joint import Apart, by_rows
from runtime_core.stores.sql import TEXT, TIME, WHOLE, Op, Sql, SqlValue, with_rows

Row: TypeAlias = tuple[Any, ...]
"""Of EVENT_COLUMNS."""
Ended: TypeAlias = tuple[str, str, Used]
"""The scope and the id of an entry, and how it ends."""

_ENTER = "INSERT INTO runtime_ledger (" + ENTRY_COLUMNS + ") VALUES {rows} ON CONFLICT (scope_id, event_id) DO NOTHING"
_ENTERED_ROW = "?" * len(ENTRY_COLUMNS.split(", "))
_ENTER_ONE = with_rows(_ENTER, _ENTERED_ROW, 1)
_END = (
    "UPDATE runtime_ledger SET state = ?, ended_at = ?, input_tokens = ?, output_tokens = ?, estimated = ?, lapsed = ?,"
    + ", ".join(f" {taken} = COALESCE(?, {held})" for taken, held in zip(TAKEN, RESERVED, strict=True))
    + " WHERE scope_id = ? AND event_id = ? AND state = ? AND lapsed = ? RETURNING "
    + HELD_COLUMNS
)
_FACTS = ("state", "ended_at", "input_tokens", "output_tokens", "estimated")
_END_ALL = (
    "UPDATE runtime_ledger SET "
    + ", ".join(f"{name} = e.column{number}" for number, name in enumerate(_FACTS, 3))
    + ", "
    + ", ".join(
        f"{taken} = COALESCE(e.column{number}, {held})"
        for number, (taken, held) in enumerate(zip(TAKEN, RESERVED, strict=True), 3 + len(_FACTS))
    )
    + " FROM (VALUES {rows}) AS e WHERE runtime_ledger.scope_id = e.column1 AND runtime_ledger.event_id = e.column2"
    " AND runtime_ledger.state = 'reserved' AND runtime_ledger.lapsed = 0 RETURNING scope_id, event_id, " + HELD_COLUMNS
)
_ENDED_ROW = (TEXT, TEXT, TEXT, TIME, *[WHOLE] * (3 + len(TAKEN)))
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
_NOTE = (
    "INSERT INTO runtime_ledger (scope_id, event_id, type, state, timestamp, at_second, principal_id, role, run_id,"
    " detail) VALUES (?, ?, ?, 'noted', ?, ?, ?, ?, ?, ?) ON CONFLICT (scope_id, event_id) DO NOTHING"
)


def check(account: Account, wanted: Wanted) -> Op[Refusal | None]:
    """What `reserve` would say."""
    return decide((yield from applying(account, wanted.at)), wanted)


def reserve(entry: Entry) -> Op[Refusal | None]:
    """Hold back the most that the entry may take, if every budget has room for it; an entry again changes nothing.

    Raises StoreConflictError if the id is another entry's.
    """
    budgets = yield from applying(entry.account, int(entry.at))
    refusal = _refusal(entry, budgets)
    if refusal is None:
        yield from _enter_counted(entry, budgets)
        return None
    return (yield from _refuse(entry, refusal))


def reserve_all(entries: Sequence[Entry]) -> Op[list[Refusal | None]]:
    """`reserve` for each, in order. Raises Apart where some of them are the same, or were there before."""
    if len(entries) == 1:
        return [(yield from reserve(entries[0]))]
    if len({(entry.scope_id, entry.event_id) for entry in entries}) < len(entries):
        raise Apart("Some of these reservations are the same.")
    minutes: dict[tuple[str, int], list[int]] = {}
    for place, entry in enumerate(entries):
        minutes.setdefault((entry.scope_id, int(entry.at) // 60), []).append(place)
    refusals: list[Refusal | None] = [None] * len(entries)
    for _, places in sorted(minutes.items()):
        if len(places) == 1:
            refusals[places[0]] = yield from reserve(entries[places[0]])
            continue
        said = yield from _reserve_in_minute([entries[place] for place in places])
        for place, refusal in zip(places, said, strict=True):
            refusals[place] = refusal
    return refusals


def _reserve_in_minute(entries: Sequence[Entry]) -> Op[list[Refusal | None]]:
    """Of one scope, and in the same windows."""
    accounts = [entry.account for entry in entries]
    applying = yield from applying_to(dict.fromkeys(accounts), int(entries[0].at))
    counted = {account: all_counted(budgets) for account, budgets in applying.items()}
    refusals: list[Refusal | None] = []
    fitting: list[tuple[Entry, str]] = []
    for entry, account in zip(entries, accounts, strict=True):
        budgets = applying[account]
        refusal = _refusal(entry, budgets)
        if refusal is None:
            fitting.append((entry, counted[account]))
            for budget in budgets:
                if budget.fresh:
                    yield from store_fresh(budget, int(entry.at))
                budget.hold(entry.most)
        else:
            refusal = yield from _refuse(entry, refusal)
        refusals.append(refusal)
    yield from _enter_all(fitting)
    return refusals


def _refusal(entry: Entry, budgets: Sequence[Applying]) -> Refusal | None:
    if entry.bounded_by is not None:
        refusal = other_limits(budgets, entry.bounded_by, entry.account)
        if refusal is not None:
            return refusal
    return decide(budgets, Wanted(entry.most, int(entry.at), entry.priced, whole_run=entry.type == HOLD))


def record(entry: Entry, used: Used) -> Op[Row]:
    """What was used already and cannot be refused any more, as an event; the same id again changes nothing."""
    yield from _enter_counted(entry, (yield from applying(entry.account, int(entry.at))))
    row = yield from end(entry.scope_id, entry.event_id, used)
    assert row is not None, "an entry that was entered"
    return row


def give_up(entry: Entry) -> Op[None]:
    """Write an entry that is not to be made any more as released. No counter ever sees it."""
    yield from _enter(entry, "")
    yield from end(entry.scope_id, entry.event_id, Used(EventState.RELEASED, entry.at, NOTHING))


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


def end_all(ended: Sequence[Ended]) -> Op[list[Row | None]]:
    """`end` for each; of several endings of one entry the first wins."""
    if len(ended) == 1:
        return [(yield from end(*ended[0]))]
    first = list({each[:2]: each for each in reversed(ended)}.values())
    rows: dict[tuple[str, str], Row] = {}
    changes: dict[str, Changes] = {}
    for some in by_rows(first):
        how = {(scope_id, event_id): used for scope_id, event_id, used in some}
        params = tuple(chain.from_iterable(map(_values_of_end, some)))
        for row in (yield Sql(with_rows(_END_ALL, _ENDED_ROW, len(some)), params)):
            scope_id, event_id = row[:2]
            used, was = how[scope_id, event_id], row[2:]
            taken, held, counted = _taken(used, was)
            if counted:
                change(changes.setdefault(scope_id, {}), counted, (*taken, *_minus(held)))
            rows[scope_id, event_id] = ended_row(scope_id, event_id, used, taken, was, lapsed=False)
    for scope_id, of_scope in sorted(changes.items()):
        yield from count_all(scope_id, of_scope)
    found: list[Row | None] = []
    for scope_id, event_id, used in ended:
        found.append(rows.get((scope_id, event_id)) or (yield from end(scope_id, event_id, used)))
    return found


def lapse(scope_id: str, event_id: str, now: float) -> Op[Row | None]:
    """Nobody ended the entry: it is unknown, and counts as the most that it may have taken. None if it has ended."""
    return (yield from _end(scope_id, event_id, Used(EventState.UNKNOWN, now, None, estimated=True), lapsed=True))


def _end(scope_id: str, event_id: str, used: Used, *, late: bool = False, lapsed: bool = False) -> Op[Row | None]:
    """Of an entry that is reserved; `late`, of one whose lease has lapsed. None if there is none."""
    facts = (used.state.value, used.at, used.input_tokens, used.output_tokens, int(used.estimated))
    actual = _UNSAID if used.actual is None else used.actual
    before = ("unknown", 1) if late else ("reserved", 0)
    rows = yield Sql(_END, (*facts, int(late or lapsed), *actual, scope_id, event_id, *before))
    if not rows:
        return None
    [was] = rows
    taken, held, counted = _taken(used, was)
    if counted:
        spent = tuple(map(sub, taken, held)) if late else taken
        by = (*spent, *(NOTHING if late else _minus(held)))
        yield from count(scope_id, counted, by)
    return ended_row(scope_id, event_id, used, taken, was, lapsed=late or lapsed)


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


def _refuse(entry: Entry, refusal: Refusal) -> Op[Refusal | None]:
    """None after all for an entry that was there before."""
    if (yield from _is_there(entry)):
        return None
    if refusal.bounding is None:
        yield from _note_refusal(entry, refusal)
    return refusal


def _enter_counted(entry: Entry, budgets: Sequence[Applying]) -> Op[None]:
    for budget in budgets:
        if budget.fresh:
            yield from store_fresh(budget, int(entry.at))
    yield from _enter(entry, all_counted(budgets))


def _enter(entry: Entry, counted: str) -> Op[None]:
    """Write the entry as reserved, and count it in its places; one that was there before is what it was."""
    [(written,)] = yield Sql(_ENTER_ONE, values_of(entry, counted), counts=True)
    if not written:
        yield from _is_there(entry)
    elif counted:
        yield from count(entry.scope_id, counted, (*NOTHING, *entry.most))


def _enter_all(fitting: Sequence[tuple[Entry, str]]) -> Op[None]:
    """`_enter` for entries of one scope. Raises Apart where one was there before: others were refused or not for what
    it seemed to hold back once more."""
    rows: list[tuple[SqlValue, ...]] = []
    changes: Changes = {}
    for entry, counted in fitting:
        if counted:
            change(changes, counted, (*NOTHING, *entry.most))
        rows.append(values_of(entry, counted))
    for some in by_rows(rows):
        statement = with_rows(_ENTER, _ENTERED_ROW, len(some))
        [(written,)] = yield Sql(statement, tuple(chain.from_iterable(some)), counts=True)
        if written < len(some):
            raise Apart("Some of these entries were there before.")
    if changes:
        yield from count_all(fitting[0][0].scope_id, changes)


def _values_of_end(ended: Ended) -> tuple[SqlValue, ...]:
    scope_id, event_id, used = ended
    actual = _UNSAID if used.actual is None else used.actual
    facts = (used.state.value, used.at, used.input_tokens, used.output_tokens, int(used.estimated))
    return (scope_id, event_id, *facts, *actual)


def _taken(used: Used, was: Row) -> tuple[tuple[int, ...], tuple[int, ...], str]:
    """Of HELD_COLUMNS: what the entry took, what was held back for it, and where it is counted."""
    held, counted = was[-1 - len(RESERVED) : -1], was[-1]
    return (held if used.actual is None else used.actual), held, counted


def _is_there(entry: Entry) -> Op[bool]:
    """Whether the entry was entered before. Raises StoreConflictError if its id is another one's."""
    rows = yield Sql(_HELD, (entry.scope_id, entry.event_id))
    if not rows:
        return False
    at, principal_id, role, run_id, *held = rows[0]
    account = Account(entry.scope_id, principal_id, role, run_id)
    if (at, account, tuple(held)) != (int(entry.at), entry.account, entry.most):
        raise StoreConflictError(f"Event {entry.event_id!a} is another event of the ledger already; use a new id.")
    return True


def _note_refusal(entry: Entry, refusal: Refusal) -> Op[None]:
    """The first one of each limit and window: those who knock again must not fill the table."""
    when = period(Window.DAY if refusal.window is Window.REQUEST else refusal.window, int(entry.at))
    account = refusal.account
    parts = (account.principal_id, account.role, account.run_id, refusal.limit, refusal.reason, when)
    yield from note(account, f"{REFUSED} {json.dumps(parts)}", REFUSED, entry.at, refusal.message)


def _minus(amounts: Sequence[int]) -> tuple[int, ...]:
    return tuple(map(neg, amounts))
