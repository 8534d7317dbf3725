"""The call log on a database."""

from __future__ import annotations

from runtime_core.call_log import finds, keys, ops, retention, together
from runtime_core.call_log.finds import Cursor, Filter, Page
from runtime_core.call_log.keys import Answer, Claim, Completion, KeyState, Started
from runtime_core.call_log.records import Attempt, AttemptKey, Ending, LoggedAttempt
from runtime_core.call_log.schema import MIGRATIONS
from runtime_core.call_log.totals import RunTotals, totals
from runtime_core.clock import Clock, SteadyTime
from runtime_core.quota import Quota
from runtime_core.stores.database import Database
from runtime_core.stores.failpoints import failpoint
from runtime_core.stores.joint import Joint
from runtime_core.stores.migrations import migrate
from runtime_core.stores.scope import everywhere, in_scope, in_scope_or_everywhere


class CallLog:
    """Attempts, answers and idempotency keys on a database that the caller opens and closes.

    Every method may be repeated after StoreUnavailableError, also with `outcome_unknown`. `expire`, `fail` and
    the `forget` methods then report only what the repetition itself changed. A scope keeps `max_keys` idempotency
    keys at most.
    """

    def __init__(self, database: Database, *, clock: Clock, max_keys: int = keys.MAX_KEYS) -> None:
        self._database = database
        self._quota = Quota(max_keys, monotonic=clock.monotonic)
        self._time = SteadyTime(clock)

    def now(self) -> float:
        """The log's SteadyTime, in seconds since the epoch: take the times of attempts and endings from here."""
        return self._time.now()

    async def prepare(self) -> None:
        """Create or upgrade the tables; call it once per process."""
        await migrate(self._database, "call_log", MIGRATIONS)

    async def reserve(self, attempt: Attempt) -> None:
        """Write the attempt's row, before the provider is asked; the same attempt again changes nothing.

        Raises StoreConflictError if the id is another attempt's.
        """
        failpoint("call_log.before_reserve")
        await self._database.run(Joint(together.reserve, attempt, attempt.scope_id))
        failpoint("call_log.after_reserve")

    async def renew(self, key: AttemptKey, *, lease_until: float) -> bool:
        """Move the attempt's lease forward, never back; False if it is not reserved any more."""
        return await self._database.run(in_scope(key.scope_id, lambda: ops.renew(key, lease_until)))

    async def end(self, attempt: Attempt, ending: Ending) -> LoggedAttempt:
        """Write how the attempt ended, keep its answer, and return the row as it now is.

        The first ending wins. A lapsed lease is a guess and no ending: whoever made the call may still end it.
        Raises StoreConflictError for an attempt that was never reserved.
        """
        failpoint("call_log.before_end")
        row = await self._database.run(Joint(together.end, (attempt, ending), attempt.scope_id))
        failpoint("call_log.after_end")
        return row

    async def end_with_claim(self, attempt: Attempt, ending: Ending, claim: Claim) -> Completion:
        """`end` with an answer, and the claimed key gets that answer if the claim still holds, in one commit."""
        failpoint("call_log.before_end")
        now = self.now()
        completion = await self._database.run(
            in_scope(attempt.scope_id, lambda: keys.end_with_claim(attempt, ending, claim, now))
        )
        failpoint("call_log.after_end")
        return completion

    async def expire(self, *, limit: int = 1000) -> list[LoggedAttempt]:
        """Mark up to `limit` attempts of all scopes whose lease has run out as unknown; those, oldest first."""
        now = self.now()
        return await self._database.run(everywhere(lambda: ops.expire(now, limit)))

    async def begin(self, claim: Claim) -> Started | KeyState:
        """Claim an idempotency key. Of many claimants exactly one is Started; a lapsed claim is taken over.

        Raises StoreQuotaError for a new key of a scope that keeps `max_keys` already.
        """
        now = self.now()
        async with self._quota.place(claim.scope_id, lambda: self._kept_keys(claim.scope_id)) as may_add:
            full_at = None if may_add else self._quota.limit
            return await self._database.run(in_scope(claim.scope_id, lambda: keys.begin(claim, now, full_at=full_at)))

    async def renew_claim(self, claim: Claim) -> bool:
        """Hold the key for another `lease_s`; False if the claim was lost."""
        now = self.now()
        return await self._database.run(in_scope(claim.scope_id, lambda: keys.renew(claim, now)))

    async def fail(self, claim: Claim) -> bool:
        """Free the key, because failures are not stored; False if the claim was lost."""
        return await self._database.run(in_scope(claim.scope_id, lambda: keys.fail(claim)))

    async def attempts(
        self, scope_id: str, which: Filter | None = None, *, after: Cursor | None = None, limit: int = 100
    ) -> Page:
        """A page of the scope's attempts, in the order they were reserved; `after` is the page before's `next`."""
        return await self._database.read(
            in_scope(scope_id, lambda: finds.attempts(scope_id, which or Filter(), after=after, limit=limit))
        )

    async def totals(self, scope_id: str, run_id: str) -> RunTotals:
        """What the run has used so far; zeros for a run without attempts."""
        return await self._database.read(in_scope(scope_id, lambda: totals(scope_id, run_id)))

    async def answer(self, scope_id: str, answer_hash: str) -> str | None:
        """The kept answer of that hash, None if it was never kept or is forgotten."""
        return await self._database.read(in_scope(scope_id, lambda: finds.answer(scope_id, answer_hash)))

    async def cached(self, scope_id: str, request_hash: str, *, newer_than: float) -> Answer | None:
        """The newest success with that request hash that ended after `newer_than`, if its answer is still kept."""
        return await self._database.read(in_scope(scope_id, lambda: finds.cached(scope_id, request_hash, newer_than)))

    async def forget(self, *, older_than: float, scope_id: str | None = None, limit: int = 1000) -> int:
        """Delete up to `limit` attempts that ended before `older_than`, and as many answers, of one scope or of all.

        How many were deleted: repeat it until that is none. An answer stays while a key still has to give it.
        """
        return await self._database.run(
            in_scope_or_everywhere(scope_id, lambda: retention.forget(scope_id, older_than, limit))
        )

    async def forget_answers(self, *, older_than: float, scope_id: str | None = None, limit: int = 1000) -> int:
        """Delete up to `limit` answers that no attempt has given since `older_than`; the accounts stay."""
        return await self._database.run(
            in_scope_or_everywhere(scope_id, lambda: retention.forget_answers(scope_id, older_than, limit))
        )

    async def forget_keys(self, *, limit: int = 1000) -> int:
        """Free the space of up to `limit` expired idempotency keys of all scopes; how many there were."""
        now = self.now()
        return await self._database.run(everywhere(lambda: retention.forget_keys(now, limit)))

    async def _kept_keys(self, scope_id: str) -> int:
        """How many keys the scope has; where those are too many, without some that have expired."""
        limit = self._quota.limit
        kept = await self._database.read(in_scope(scope_id, lambda: keys.count(scope_id, limit)))
        if kept < limit:
            return kept
        now = self.now()
        return kept - await self._database.run(
            in_scope(scope_id, lambda: retention.forget_keys_of(scope_id, now, 1000))
        )
