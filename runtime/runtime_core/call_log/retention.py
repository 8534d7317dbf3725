"""What the log forgets: attempts and answers by age, idempotency keys when they have expired.

Each operation is one bounded batch; repeat it until it finds nothing. Attempts that are still reserved stay,
because they have to end first, and so do answers that a key still has to give.
"""

from __future__ import annotations

from runtime_core.stores.sql import Op, Sql

_ATTEMPTS = (
    "DELETE FROM calls WHERE (scope_id, attempt_id) IN (SELECT scope_id, attempt_id FROM calls"
    " WHERE ended_at < ? ORDER BY ended_at LIMIT ?) RETURNING number"
)
# By the index on reserved_at: an attempt is reserved before it ends.
_ATTEMPTS_OF_SCOPE = (
    "DELETE FROM calls WHERE (scope_id, attempt_id) IN (SELECT scope_id, attempt_id FROM calls"
    " WHERE scope_id = ? AND reserved_at < ? AND ended_at < ? ORDER BY reserved_at LIMIT ?) RETURNING number"
)
_UNNEEDED = (
    "NOT EXISTS (SELECT 1 FROM idempotency k WHERE k.scope_id = answers.scope_id"
    " AND k.answer_hash = answers.answer_hash)"
)
_ANSWERS = (
    "DELETE FROM answers WHERE (scope_id, answer_hash) IN (SELECT scope_id, answer_hash FROM answers"
    " WHERE kept_at < ? AND " + _UNNEEDED + " ORDER BY kept_at LIMIT ?) RETURNING size"
)
_ANSWERS_OF_SCOPE = (
    "DELETE FROM answers WHERE (scope_id, answer_hash) IN (SELECT scope_id, answer_hash FROM answers"
    " WHERE scope_id = ? AND kept_at < ? AND " + _UNNEEDED + " LIMIT ?) RETURNING size"
)
_KEYS = (
    "DELETE FROM idempotency WHERE (scope_id, key_hash) IN (SELECT scope_id, key_hash FROM idempotency"
    " WHERE expires_at <= ? AND (state = 'done' OR lease_until <= ?) ORDER BY expires_at LIMIT ?)"
    " RETURNING state"
)
_KEYS_OF_SCOPE = (
    "DELETE FROM idempotency WHERE scope_id = ? AND key_hash IN (SELECT key_hash FROM idempotency"
    " WHERE scope_id = ? AND expires_at <= ? AND (state = 'done' OR lease_until <= ?) LIMIT ?) RETURNING state"
)


def forget_attempts(scope_id: str | None, older_than: float, limit: int) -> Op[int]:
    """Delete up to `limit` attempts that ended before `older_than`, of one scope or of all; how many."""
    if scope_id is None:
        return len((yield Sql(_ATTEMPTS, (older_than, limit))))
    return len((yield Sql(_ATTEMPTS_OF_SCOPE, (scope_id, older_than, older_than, limit))))


def forget_answers(scope_id: str | None, older_than: float, limit: int) -> Op[int]:
    """Delete up to `limit` answers that no attempt has given since `older_than`, of one scope or of all; how many."""
    if scope_id is None:
        return len((yield Sql(_ANSWERS, (older_than, limit))))
    return len((yield Sql(_ANSWERS_OF_SCOPE, (scope_id, older_than, limit))))


def forget(scope_id: str | None, older_than: float, limit: int) -> Op[int]:
    """A batch of attempts and a batch of answers; how many were deleted together."""
    attempts = yield from forget_attempts(scope_id, older_than, limit)
    return attempts + (yield from forget_answers(scope_id, older_than, limit))


def forget_keys(now: float, limit: int) -> Op[int]:
    """Delete up to `limit` expired idempotency keys of all scopes; nobody sees them in any case."""
    return len((yield Sql(_KEYS, (now, now, limit))))


def forget_keys_of(scope_id: str, now: float, limit: int) -> Op[int]:
    """`forget_keys` of one scope."""
    return len((yield Sql(_KEYS_OF_SCOPE, (scope_id, scope_id, now, now, limit))))
