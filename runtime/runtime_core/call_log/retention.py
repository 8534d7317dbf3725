"""What the log forgets: old attempts, expired keys, old answers; an answer goes with the last that names it.

Each operation is one bounded batch, oldest first; repeat it until it finds nothing. Attempts that are still
reserved stay: they have to end first.
"""

from __future__ import annotations

from runtime_core.stores.sql import Op, Rows, Sql

_OLD_ATTEMPTS = (
    "DELETE FROM calls WHERE (scope_id, attempt_id) IN (SELECT scope_id, attempt_id FROM calls"
    " WHERE ended_at < ? ORDER BY ended_at LIMIT ?) RETURNING scope_id, answer_hash"
)
_OLD_ATTEMPTS_OF_SCOPE = (
    "DELETE FROM calls WHERE (scope_id, attempt_id) IN (SELECT scope_id, attempt_id FROM calls"
    " WHERE scope_id = ? AND ended_at < ? ORDER BY ended_at LIMIT ?) RETURNING scope_id, answer_hash"
)
# Found first, because RETURNING gives the hash as it is after the update.
_OLD_ANSWERS = (
    "SELECT scope_id, answer_hash, attempt_id FROM calls"
    " WHERE answer_hash IS NOT NULL AND ended_at < ? ORDER BY ended_at LIMIT ?"
)
_OLD_ANSWERS_OF_SCOPE = (
    "SELECT scope_id, answer_hash, attempt_id FROM calls"
    " WHERE scope_id = ? AND answer_hash IS NOT NULL AND ended_at < ? ORDER BY ended_at LIMIT ?"
)
_STRIP = "UPDATE calls SET answer_hash = NULL WHERE scope_id = ? AND attempt_id = ?"
_EXPIRED_KEYS = (
    "DELETE FROM idempotency WHERE (scope_id, key_hash) IN (SELECT scope_id, key_hash FROM idempotency"
    " WHERE expires_at <= ? AND (state = 'done' OR lease_until <= ?) ORDER BY expires_at LIMIT ?)"
    " RETURNING scope_id, answer_hash"
)
_DROP = (
    "DELETE FROM answers WHERE scope_id = ? AND answer_hash = ?"
    " AND NOT EXISTS (SELECT 1 FROM calls c WHERE c.scope_id = answers.scope_id"
    " AND c.answer_hash = answers.answer_hash)"
    " AND NOT EXISTS (SELECT 1 FROM idempotency k WHERE k.scope_id = answers.scope_id"
    " AND k.answer_hash = answers.answer_hash)"
)


def forget(scope_id: str | None, older_than: float, limit: int) -> Op[int]:
    """Delete up to `limit` attempts that ended before `older_than`, of one scope or of all; how many."""
    if scope_id is None:
        rows = yield Sql(_OLD_ATTEMPTS, (older_than, limit))
    else:
        rows = yield Sql(_OLD_ATTEMPTS_OF_SCOPE, (scope_id, older_than, limit))
    yield from _drop_unnamed(rows)
    return len(rows)


def forget_answers(scope_id: str | None, older_than: float, limit: int) -> Op[int]:
    """Take the answers from up to `limit` attempts that ended before `older_than`; the accounts stay."""
    if scope_id is None:
        rows = yield Sql(_OLD_ANSWERS, (older_than, limit))
    else:
        rows = yield Sql(_OLD_ANSWERS_OF_SCOPE, (scope_id, older_than, limit))
    for scope, _, attempt_id in rows:
        yield Sql(_STRIP, (scope, attempt_id))
    yield from _drop_unnamed(rows)
    return len(rows)


def forget_keys(now: float, limit: int) -> Op[int]:
    """Delete up to `limit` expired idempotency keys of all scopes; nobody sees them in any case."""
    rows = yield Sql(_EXPIRED_KEYS, (now, now, limit))
    yield from _drop_unnamed(rows)
    return len(rows)


def _drop_unnamed(rows: Rows) -> Op[None]:
    for scope_id, answer_hash in dict.fromkeys((row[0], row[1]) for row in rows if row[1] is not None):
        yield Sql(_DROP, (scope_id, answer_hash))
