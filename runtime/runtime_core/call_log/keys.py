"""Idempotency keys: one execution at a time, one kept answer, a takeover when the executor is gone.

(no row) -> in flight     one owner claimed the key, until its lease runs out
in flight -> in flight    the lease ran out and another owner took over
in flight -> done         in the same transaction as the ending of the attempt that answered
in flight -> (no row)     the owner gave up: failures are not stored
done -> (no row)          the answer expired

Who owns a key is decided by the owner's token alone. Clocks decide only whether a takeover is tried, so a clock
that jumps can cost a second execution, never a second result.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TypeAlias

from runtime_core.call_log import ops
from runtime_core.call_log.records import Attempt, Ending, LoggedAttempt
from runtime_core.errors import StoreQuotaError, StoreValueError
from runtime_core.ids import check_scope_id
from runtime_core.stores.sql import Op, Sql

MAX_KEY_CHARS = 255
MAX_KEYS = 100_000
"""Keys that a scope may keep at a time, unless somebody says otherwise."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Who wants to execute what: `owner` is unique to this execution, `request_hash` is of its request.

    The claim is held for `lease_s` after it was begun or renewed, its answer is kept for `ttl_s` after it was
    completed. Raises IdentityError for the scope, StoreValueError for a key that is not 1 to 255 characters.
    """

    scope_id: str
    key: str
    request_hash: str
    owner: str
    lease_s: float = 60.0
    ttl_s: float = 86_400.0

    def __post_init__(self) -> None:
        check_scope_id(self.scope_id)
        if not 1 <= len(self.key) <= MAX_KEY_CHARS:
            raise StoreValueError(
                f"An idempotency key has 1 to {MAX_KEY_CHARS} characters, this one {len(self.key)}.",
                size=len(self.key),
                limit=MAX_KEY_CHARS,
            )

    @property
    def key_hash(self) -> str:
        """What is stored of the key, which may be long or a secret of the client."""
        return hashlib.sha256(self.key.encode(errors="surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Answer:
    """A kept answer and the attempt that paid for it."""

    attempt_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Started:
    """The key is the claimant's: execute, then end the attempt with the claim, or fail it."""


@dataclass(frozen=True, slots=True)
class Done:
    """The key has its answer."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class InFlight:
    """`owner` executes, and may be taken over from after `lease_until`."""

    owner: str
    lease_until: float


@dataclass(frozen=True, slots=True)
class Conflict:
    """The key belongs to another request."""

    request_hash: str


KeyState: TypeAlias = Done | InFlight | Conflict


@dataclass(frozen=True, slots=True)
class Completion:
    """An attempt that ended with a claim.

    `key` is the key as it now is: Done with this attempt where the claim still held. Otherwise the claim had
    been lost, and Done or InFlight tell of the one that took over; None says that this one gave up too.
    """

    attempt: LoggedAttempt
    key: KeyState | None


_BEGIN = (
    "INSERT INTO idempotency (scope_id, key_hash, request_hash, owner, state, lease_until, expires_at)"
    " VALUES (?, ?, ?, ?, 'in_flight', ?, ?) ON CONFLICT (scope_id, key_hash) DO UPDATE"
    " SET request_hash = excluded.request_hash, owner = excluded.owner, state = 'in_flight',"
    " lease_until = excluded.lease_until, expires_at = excluded.expires_at, answer_hash = NULL, attempt_id = NULL"
    " WHERE (idempotency.state = 'done' AND idempotency.expires_at <= ?)"
    " OR (idempotency.state = 'in_flight' AND idempotency.lease_until <= ? AND idempotency.expires_at <= ?)"
    " OR (idempotency.state = 'in_flight' AND idempotency.request_hash = excluded.request_hash"
    " AND (idempotency.lease_until <= ? OR idempotency.owner = excluded.owner)) RETURNING owner"
)
_LOOK = (
    "SELECT k.state, k.request_hash, k.owner, k.lease_until, k.attempt_id, a.content FROM idempotency k"
    " LEFT JOIN answers a ON a.scope_id = k.scope_id AND a.answer_hash = k.answer_hash"
    " WHERE k.scope_id = ? AND k.key_hash = ?"
)
_COMPLETE = (
    "UPDATE idempotency SET state = 'done', answer_hash = ?, attempt_id = ?, expires_at = ?"
    " WHERE scope_id = ? AND key_hash = ? AND owner = ? AND state = 'in_flight'"
)
_RENEW = (
    "UPDATE idempotency SET lease_until = CASE WHEN lease_until < ? THEN ? ELSE lease_until END,"
    " expires_at = CASE WHEN expires_at < ? THEN ? ELSE expires_at END"
    " WHERE scope_id = ? AND key_hash = ? AND owner = ? AND state = 'in_flight' RETURNING owner"
)
_FAIL = (
    "DELETE FROM idempotency WHERE scope_id = ? AND key_hash = ? AND owner = ? AND state = 'in_flight' RETURNING owner"
)


_COUNT = "SELECT COUNT(*) FROM (SELECT key_hash FROM idempotency WHERE scope_id = ? LIMIT ?) AS kept"
_NEXT_TO_EXPIRE = "SELECT expires_at FROM idempotency WHERE scope_id = ? ORDER BY expires_at LIMIT 1"


def begin(claim: Claim, now: float, *, full_at: int | None = None) -> Op[Started | KeyState]:
    """Take the key if it is free, expired or lapsed; the same owner's claim again is Started again.

    In a scope that is `full_at` so many keys only one of them can be taken. Raises StoreQuotaError for another one.
    """
    if full_at is not None and (yield from look(claim)) is None:
        raise (yield from _full(claim.scope_id, now, full_at))
    until = now + claim.lease_s
    taken = yield Sql(
        _BEGIN,
        (*_place(claim), claim.request_hash, claim.owner, until, until + claim.ttl_s, now, now, now, now),
    )
    if taken:
        return Started()
    state = yield from look(claim)
    assert state is not None, "a key that cannot be taken has a row"
    return state


def look(claim: Claim) -> Op[KeyState | None]:
    """The key as it is, expired or not; None if it is free."""
    rows = yield Sql(_LOOK, _place(claim))
    if not rows:
        return None
    state, request_hash, owner, lease_until, attempt_id, content = rows[0]
    if request_hash != claim.request_hash:
        return Conflict(request_hash)
    return Done(Answer(attempt_id, content)) if state == "done" else InFlight(owner, lease_until)


def end_with_claim(attempt: Attempt, ending: Ending, claim: Claim, now: float) -> Op[Completion]:
    """`ops.end`, and the key gets the attempt's answer if the claim still holds: all of it or nothing.

    A claim that was lost does not undo the ending: the money is spent. Raises StoreValueError for an ending
    without an answer.
    """
    if ending.answer is None:
        raise StoreValueError("Only an ending with an answer completes a key; fail the claim instead.")
    row = yield from ops.end(attempt, ending)
    if row.answer_hash is not None:
        yield Sql(_COMPLETE, (row.answer_hash, attempt.attempt_id, now + claim.ttl_s, *_place(claim), claim.owner))
    return Completion(row, (yield from look(claim)))


def renew(claim: Claim, now: float) -> Op[bool]:
    """Hold the key for another `lease_s`; False if the claim was lost."""
    until = now + claim.lease_s
    gone = until + claim.ttl_s
    return bool((yield Sql(_RENEW, (until, until, gone, gone, *_place(claim), claim.owner))))


def fail(claim: Claim) -> Op[bool]:
    """Free the key for the next one; False if the claim was lost."""
    return bool((yield Sql(_FAIL, (*_place(claim), claim.owner))))


def count(scope_id: str, limit: int) -> Op[int]:
    """How many keys a scope keeps, as far as `limit`."""
    [(kept,)] = yield Sql(_COUNT, (scope_id, limit))
    return kept


def _full(scope_id: str, now: float, limit: int) -> Op[StoreQuotaError]:
    rows = yield Sql(_NEXT_TO_EXPIRE, (scope_id,))
    wait = max(1.0, rows[0][0] - now) if rows else 1.0
    return StoreQuotaError(
        f"This scope keeps {limit} idempotency keys, and may keep no more; the first expires in {wait:.0f} s.",
        limit=limit,
        retry_after=wait,
    )


def _place(claim: Claim) -> tuple[str, str]:
    return (claim.scope_id, claim.key_hash)
