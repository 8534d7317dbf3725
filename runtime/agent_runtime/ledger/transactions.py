"""An attempt at a model in one transaction each: its reservation with its row, its settlement with the row's end.

Whoever makes the call needs no more of the ledger than `LedgerTransactions`; where they are committed, here or by
another process that collects them from many, is not its business. Each may be repeated with the same ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agent_runtime.ledger import budget_ops, holds, ops, runs
from agent_runtime.ledger.amounts import Amounts
from agent_runtime.ledger.decide import Refusal
from agent_runtime.ledger.records import Entry, EventState, Used
from agent_runtime.ledger.schema import MIGRATIONS
from agent_runtime.ledger.worst_case import turns_of
from runtime_core.call_log import keys, together
from runtime_core.call_log import ops as call_ops
from runtime_core.call_log.keys import Claim, Completion
from runtime_core.call_log.records import Attempt, AttemptStatus, Ending, LoggedAttempt
from runtime_core.call_log.schema import MIGRATIONS as CALL_LOG_MIGRATIONS
from runtime_core.stores.database import Database
from runtime_core.stores.joint import Joint
from runtime_core.stores.migrations import migrate
from runtime_core.stores.scope import in_scope
from runtime_core.stores.sql import Op, OpFactory

_COUNTERS_KEPT_S = 2 * 86_400.0
_COUNTERS_TOGETHER = 500
EXPIRED_TOGETHER = 20
"""Few in one transaction: on PostgreSQL it keeps each of their rows from whoever ends it after all, late."""


@dataclass(frozen=True, slots=True)
class Lapsed:
    """The attempts that became unknown, and whether more may be due: attempts, other entries, or budgets of runs."""

    attempts: list[LoggedAttempt]
    more: bool


class LedgerTransactions(Protocol):
    """Each method is one transaction, durable when it returns; all raise errors of the StoreError tree.

    After a StoreUnavailableError, repeat it with the same ids.
    """

    async def reserve(self, attempt: Attempt, entry: Entry) -> Refusal | None:
        """Hold back the entry's most and write the attempt's row, or say which budget has no room: then neither."""
        ...

    async def end(self, attempt: Attempt, ending: Ending, entry: Entry) -> LoggedAttempt:
        """End the row, and count what it says. Raises StoreConflictError for an attempt that was never reserved."""
        ...

    async def end_with_claim(
        self, attempt: Attempt, ending: Ending, entry: Entry, *, claim: Claim, now: float
    ) -> Completion:
        """`end`, and the claimed key gets the answer if the claim still holds."""
        ...


class StoredTransactions:
    """The transactions on a database, which stays its caller's to close."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reserve(self, attempt: Attempt, entry: Entry) -> Refusal | None:
        return await self._database.run(reserving(attempt, entry))

    async def end(self, attempt: Attempt, ending: Ending, entry: Entry) -> LoggedAttempt:
        return await self._database.run(ending_of(attempt, ending, entry))

    async def end_with_claim(
        self, attempt: Attempt, ending: Ending, entry: Entry, *, claim: Claim, now: float
    ) -> Completion:
        return await self._database.run(completing(attempt, ending, entry, claim, now))


async def prepare_ledger(database: Database) -> None:
    """Create or upgrade the tables of the call log and of the ledger."""
    await migrate(database, "call_log", CALL_LOG_MIGRATIONS)
    await migrate(database, "runtime_ledger", MIGRATIONS)


def reserving(attempt: Attempt, entry: Entry) -> OpFactory[Refusal | None]:
    """`reserve`, together with others where it does not draw on what is held for a run."""
    if entry.budgeted:
        return in_scope(attempt.scope_id, lambda: reserve(attempt, entry))
    return Joint(_reserve_all, (attempt, entry), attempt.scope_id)


def ending_of(attempt: Attempt, ending: Ending, entry: Entry) -> OpFactory[LoggedAttempt]:
    """`end`, together with others where nothing goes back to what is held for a run."""
    if entry.budgeted:
        return in_scope(attempt.scope_id, lambda: end(attempt, ending, entry))
    return Joint(_end_all, (attempt, ending, entry), attempt.scope_id)


def completing(attempt: Attempt, ending: Ending, entry: Entry, claim: Claim, now: float) -> OpFactory[Completion]:
    """`end_with_claim`, of which each is alone: a claim is one caller's."""
    return in_scope(attempt.scope_id, lambda: end_with_claim(attempt, ending, entry, claim=claim, now=now))


def reserve(attempt: Attempt, entry: Entry) -> Op[Refusal | None]:
    refusal = yield from holds.reserve(entry)
    if refusal is None:
        yield from call_ops.reserve(attempt)
    return refusal


def reserve_for_good(attempt: Attempt, entry: Entry) -> Op[Refusal | None]:
    """`reserve` where another writer was asked too and may be late: what is refused here it cannot reserve any more."""
    refusal = yield from reserve(attempt, entry)
    if refusal is not None and refusal.bounding is None:
        at = attempt.reserved_at
        yield from call_ops.reserve(attempt)
        yield from call_ops.end(attempt, Ending(status=AttemptStatus.RELEASED, ended_at=at, error="refused"))
        yield from ops.give_up(entry)
    return refusal


def _reserve_all(booked: Sequence[tuple[Attempt, Entry]]) -> Op[list[Refusal | None]]:
    refusals = yield from ops.reserve_all([entry for _, entry in booked])
    fitting = [attempt for (attempt, _), refusal in zip(booked, refusals, strict=True) if refusal is None]
    yield from together.reserve(fitting)
    return refusals


def end(attempt: Attempt, ending: Ending, entry: Entry) -> Op[LoggedAttempt]:
    row = yield from call_ops.end(attempt, ending)
    yield from _settle(row, entry)
    return row


def _end_all(ended: Sequence[tuple[Attempt, Ending, Entry]]) -> Op[list[LoggedAttempt]]:
    rows = yield from together.end([(attempt, ending) for attempt, ending, _ in ended])
    used = list(map(_used, rows))
    entries = [entry for *_, entry in ended]
    known = yield from ops.end_all(
        [(entry.scope_id, entry.event_id, each) for entry, each in zip(entries, used, strict=True)]
    )
    for entry, each, there in zip(entries, used, known, strict=True):
        yield from _record_unknown(entry, each, there)
    return rows


def end_with_claim(attempt: Attempt, ending: Ending, entry: Entry, *, claim: Claim, now: float) -> Op[Completion]:
    completion = yield from keys.end_with_claim(attempt, ending, claim, now)
    yield from _settle(completion.attempt, entry)
    return completion


def expire_attempts(now: float, limit: int) -> Op[Lapsed]:
    """What nobody renewed in time, up to `limit` of each kind: calls become unknown, in the log and in the ledger, and
    the budgets of runs go."""
    rows = yield from call_ops.expire(now, limit)
    for row in rows:
        yield from ops.lapse(row.attempt.scope_id, row.attempt.attempt_id, now)
    entries = yield from ops.expire(now, limit)
    ended_runs = yield from runs.expire(now, limit)
    return Lapsed(rows, more=limit in (len(rows), len(entries), ended_runs))


def forget_counters(now: float) -> Op[bool]:
    """Delete counters of windows that are long over, some at once; whether there may be more."""
    gone = yield from budget_ops.forget_counters(now - _COUNTERS_KEPT_S, _COUNTERS_TOGETHER)
    return gone == _COUNTERS_TOGETHER


def _settle(row: LoggedAttempt, entry: Entry) -> Op[None]:
    """What the row says, whoever wrote it."""
    used = _used(row)
    if entry.budgeted:
        known = yield from holds.end(entry.scope_id, entry.event_id, used, run_id=entry.run_id)
    else:
        known = yield from ops.end(entry.scope_id, entry.event_id, used)
    yield from _record_unknown(entry, used, known)


def _record_unknown(entry: Entry, used: Used, known: ops.Row | None) -> Op[None]:
    """A call that began before there was a ledger is counted all the same."""
    if known is None:
        yield from ops.record(entry, used)


def _used(row: LoggedAttempt) -> Used:
    ending, attempt = row.ending, row.attempt
    assert ending is not None, "a row that was ended"
    if ending.status is AttemptStatus.RELEASED:
        return Used(EventState.RELEASED, ending.ended_at, Amounts(turns=turns_of(attempt)))
    if ending.status is AttemptStatus.UNKNOWN or ending.usage is None:
        # An estimate could be below what the provider counts; the reserved maximum cannot.
        return Used(EventState.UNKNOWN, ending.ended_at, None, estimated=True)
    usage = ending.usage
    actual = Amounts(
        tokens=usage.input + usage.output, cost_micro=ending.cost_micro or 0, requests=1, turns=turns_of(attempt)
    )
    return Used(EventState.SETTLED, ending.ended_at, actual, usage.input, usage.output, usage.estimated)
