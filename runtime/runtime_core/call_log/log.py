"""The call log on a database."""

from __future__ import annotations

from runtime_core.call_log import keys, ops
from runtime_core.call_log.keys import Claim, Completion, KeyState, Started
from runtime_core.call_log.records import Attempt, AttemptKey, Ending, LoggedAttempt
from runtime_core.call_log.schema import MIGRATIONS
from runtime_core.clock import Clock
from runtime_core.stores.database import Database
from runtime_core.stores.failpoints import failpoint
from runtime_core.stores.migrations import migrate


class CallLog:
    """Attempts, answers and idempotency keys on a database that the caller opens and closes.

    Every method may be repeated after StoreUnavailableError, whose `outcome_unknown` then does not matter.
    """

    def __init__(self, database: Database, *, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._started_at = clock.now().timestamp() - clock.monotonic()

    def now(self) -> float:
        """The log's time, in seconds since the epoch: take the times of attempts and endings from here.

        The wall clock as it was when the log was made, carried on by the monotonic clock: a wall clock that
        is set, forward or back, neither ends a lease early nor keeps one alive.
        """
        return self._started_at + self._clock.monotonic()

    async def prepare(self) -> None:
        """Create or upgrade the tables; call it once per process."""
        await migrate(self._database, "call_log", MIGRATIONS)

    async def reserve(self, attempt: Attempt) -> None:
        """Write the attempt's row, before the provider is asked; the same attempt again changes nothing.

        Raises StoreConflictError if the id is another attempt's.
        """
        failpoint("call_log.before_reserve")
        await self._database.run(lambda: ops.reserve(attempt))
        failpoint("call_log.after_reserve")

    async def renew(self, key: AttemptKey, *, lease_until: float) -> bool:
        """Move the attempt's lease forward, never back; False if it is not reserved any more."""
        return await self._database.run(lambda: ops.renew(key, lease_until))

    async def end(self, key: AttemptKey, ending: Ending) -> LoggedAttempt:
        """Write how the attempt ended, keep its answer, and return the row as it now is.

        The first ending wins. A lapsed lease is a guess and no ending: whoever made the call may still end it.
        Raises StoreConflictError for an attempt that was never reserved.
        """
        failpoint("call_log.before_end")
        row = await self._database.run(lambda: ops.end(key, ending))
        failpoint("call_log.after_end")
        return row

    async def end_with_claim(self, key: AttemptKey, ending: Ending, claim: Claim) -> Completion:
        """`end` with an answer, and the claimed key gets that answer if the claim still holds, in one commit."""
        failpoint("call_log.before_end")
        now = self.now()
        completion = await self._database.run(lambda: keys.end_with_claim(key, ending, claim, now))
        failpoint("call_log.after_end")
        return completion

    async def expire(self, *, limit: int = 1000) -> list[LoggedAttempt]:
        """Mark up to `limit` attempts of all scopes whose lease has run out as unknown; those, oldest first."""
        now = self.now()
        return await self._database.run(lambda: ops.expire(now, limit))

    async def begin(self, claim: Claim) -> Started | KeyState:
        """Claim an idempotency key. Of many claimants exactly one is Started; a lapsed claim is taken over."""
        now = self.now()
        return await self._database.run(lambda: keys.begin(claim, now))

    async def renew_claim(self, claim: Claim) -> bool:
        """Hold the key for another `lease_s`; False if the claim was lost."""
        now = self.now()
        return await self._database.run(lambda: keys.renew(claim, now))

    async def fail(self, claim: Claim) -> bool:
        """Free the key, because failures are not stored; False if the claim was lost."""
        return await self._database.run(lambda: keys.fail(claim))
