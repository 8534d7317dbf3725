"""What happens to an attempt, as operations: a ledger runs them inside its own transaction with `yield from`.

`log` runs them on a database. Times are seconds since the epoch and come in.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from runtime_core.call_log.records import LEASE_LAPSED, Attempt, AttemptKey, AttemptStatus, Ending, LoggedAttempt
from runtime_core.call_log.schema import (
    ATTEMPT_COLUMNS,
    COLUMNS,
    just_ended,
    logged,
    named,
    values_of,
    values_of_ending,
)
from runtime_core.errors import StoreConflictError, StoreValueError
from runtime_core.stores.sql import Op, Sql, with_rows

_RESERVE = (
    "INSERT INTO calls ("
    + ATTEMPT_COLUMNS
    + ", status) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'reserved')"
    " ON CONFLICT (scope_id, attempt_id) DO NOTHING"
)
_END = (
    "UPDATE calls SET status = ?, ended_at = ?, input_tokens = ?, output_tokens = ?, cached_tokens = ?,"
    " reasoning_tokens = ?, usage_estimated = ?, cost_micro = ?, error = ?, answer_hash = ?"
    " WHERE scope_id = ? AND attempt_id = ?"
    " AND (status = 'reserved' OR (status = 'unknown' AND error = '" + LEASE_LAPSED + "'))"
)
_KEEP = (
    "INSERT INTO answers (scope_id, answer_hash, size, kept_at, content) VALUES {rows}"
    " ON CONFLICT (scope_id, answer_hash) DO UPDATE"
    " SET kept_at = CASE WHEN answers.kept_at < excluded.kept_at THEN excluded.kept_at ELSE answers.kept_at END"
)
_FIND = "SELECT " + COLUMNS + " FROM calls WHERE scope_id = ? AND attempt_id = ?"
_RENEW = (
    "UPDATE calls SET lease_until = CASE WHEN lease_until < ? THEN ? ELSE lease_until END"
    " WHERE scope_id = ? AND attempt_id = ? AND status = 'reserved' RETURNING number"
)
_EXPIRE = (
    "UPDATE calls SET status = 'unknown', ended_at = ?, error = '" + LEASE_LAPSED + "'"
    " WHERE status = 'reserved' AND (scope_id, attempt_id) IN (SELECT scope_id, attempt_id FROM calls"
    " WHERE status = 'reserved' AND lease_until <= ? ORDER BY lease_until LIMIT ?) RETURNING " + COLUMNS
)


class Kept(NamedTuple):
    """A row of the answers."""

    scope_id: str
    answer_hash: str
    size: int
    kept_at: float
    content: str


def reserve(attempt: Attempt) -> Op[None]:
    """Write the attempt's row; nothing if it is there already.

    Raises StoreConflictError if the row of that id is another attempt's.
    """
    [(written,)] = yield Sql(_RESERVE, values_of(attempt), counts=True)
    if written:
        return
    there = yield from find(attempt.key)
    # A lease that was renewed since makes no other attempt of it.
    if there is None or there.attempt.model_copy(update={"lease_until": attempt.lease_until}) != attempt:
        raise StoreConflictError(f"Attempt {attempt.attempt_id!a} is another attempt already; use a new id.")


def end(attempt: Attempt, ending: Ending) -> Op[LoggedAttempt]:
    """Write how the attempt ended, keep its answer, and return the row as it now is.

    The first ending wins. A lapsed lease is a guess and no ending: whoever made the call may still end it.
    Raises StoreConflictError for an attempt that was never reserved.
    """
    kept = to_keep(attempt, ending)
    answer_hash = None if kept is None else kept.answer_hash
    facts = values_of_ending(ending, answer_hash)
    [(written,)] = yield Sql(_END, (*facts, attempt.scope_id, attempt.attempt_id), counts=True)
    if not written:
        there = yield from find(attempt.key)
        if there is None:
            raise StoreConflictError(f"Attempt {attempt.attempt_id!a} was never reserved, so it cannot end.")
        return there
    if kept is not None:
        yield from keep([kept])
    return just_ended(attempt, ending, answer_hash)


def keep(answers: Sequence[Kept]) -> Op[None]:
    """Store answers, no two of them the same one of a scope; one that is there already is as old as the newest."""
    yield Sql(with_rows(_KEEP, "?????", len(answers)), tuple(chain.from_iterable(answers)), counts=True)


def find(key: AttemptKey) -> Op[LoggedAttempt | None]:
    """The attempt's row, if there is one."""
    rows = yield Sql(_FIND, (key.scope_id, key.attempt_id))
    return logged(rows[0]) if rows else None


def renew(key: AttemptKey, lease_until: float) -> Op[bool]:
    """Move the lease forward, never back; False if the attempt has ended, or its lease was taken to have lapsed."""
    return bool((yield Sql(_RENEW, (lease_until, lease_until, key.scope_id, key.attempt_id))))


def expire(now: float, limit: int) -> Op[list[LoggedAttempt]]:
    """Mark up to `limit` attempts of all scopes whose lease has run out as unknown; those, oldest first."""
    rows = yield Sql(_EXPIRE, (now, now, limit))
    return sorted((logged(row) for row in rows), key=lambda each: each.attempt.lease_until)


def to_keep(attempt: Attempt, ending: Ending) -> Kept | None:
    """The answer that the ending has, if it has one.

    Raises StoreValueError for an ending that is none, and for an answer that cannot be kept.
    """
    if ending.status is AttemptStatus.RESERVED:
        raise StoreValueError("An attempt ends as settled, released or unknown, not as reserved.")
    if ending.answer is None:
        return None
    if ending.status is not AttemptStatus.SETTLED or ending.error is not None:
        raise StoreValueError("Only an attempt that settled without an error has an answer to keep.")
    answer_hash, size = named(ending.answer)
    return Kept(attempt.scope_id, answer_hash, size, ending.ended_at, ending.answer)
