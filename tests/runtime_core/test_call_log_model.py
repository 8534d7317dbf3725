"""The call log against dictionaries: any sequence of operations, two tenants that use the same ids on purpose.

Once on a database that behaves, once on one that loses calls and answers and is asked again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from runtime_core.call_log.finds import Filter
from runtime_core.call_log.keys import Claim, Conflict, Done, InFlight, Started
from runtime_core.call_log.records import LEASE_LAPSED, Attempt, AttemptStatus, Ending, LoggedAttempt
from runtime_core.call_log.totals import RunTotals
from runtime_core.clock import ManualClock
from runtime_core.errors import StoreConflictError
from support.call_log import RELEASED, SETTLED, UNKNOWN, RepeatingLog, attempt_of, open_log_database, prepared

T = TypeVar("T")
Place = tuple[str, str]

SCOPES = ("tenant-1", "tenant-2")
scopes = st.sampled_from(SCOPES)
attempt_ids = st.sampled_from(["a1", "a2"])
requests = st.sampled_from(["r1", "r1", "r2"])
ANSWERS = ('"x"', '"y"')
answers = st.sampled_from(ANSWERS)
claims = st.builds(
    Claim,
    scopes,
    st.just("k1"),
    request_hash=requests,
    owner=st.sampled_from(["ann", "bob"]),
    lease_s=st.just(10.0),
    ttl_s=st.just(30.0),
)


def hash_of(answer: str) -> str:
    return hashlib.sha256(answer.encode()).hexdigest()


class CallLogMachine(RuleBasedStateMachine):
    fault_rate = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.rows: dict[Place, LoggedAttempt] = {}
        self.kept: dict[Place, float] = {}  # answers by scope and text, and when they were last given
        self.keys: dict[Place, tuple[Claim, float, Done | None]] = {}
        self.database = open_log_database("memory:", fault_rate=self.fault_rate)
        self.log = RepeatingLog(self.wait(prepared(self.database, self.clock)))

    def wait(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    def teardown(self) -> None:
        self.wait(self.database.close())
        self.runner.close()

    def drain(self, operation: Any, **arguments: Any) -> None:
        """Batch after batch until there is nothing more, whatever a lost answer has said."""
        while self.wait(operation(limit=1, **arguments)):
            pass

    @rule(scope_id=scopes, attempt_id=attempt_ids, request=requests, lease_s=st.integers(1, 20))
    def reserve(self, scope_id: str, attempt_id: str, request: str, lease_s: int) -> None:
        attempt = attempt_of(
            self.log,
            attempt_id,
            scope_id=scope_id,
            run_id="run-1",
            request_hash=request,
            lease_until=self.log.now() + lease_s,
        )
        there = self.rows.setdefault((scope_id, attempt_id), LoggedAttempt(attempt=attempt, status="reserved"))
        same = there.attempt.model_copy(update={"lease_until": attempt.lease_until}) == attempt
        try:
            self.wait(self.log.reserve(attempt))
            assert same
        except StoreConflictError:
            assert not same

    def expected_end(self, attempt: Attempt, ending: Ending) -> LoggedAttempt:
        there = self.rows[attempt.scope_id, attempt.attempt_id]
        lapsed = there.ending is not None and there.ending.error == LEASE_LAPSED
        if there.status == "reserved" or lapsed:
            row = LoggedAttempt(
                attempt=there.attempt,
                status=ending.status,
                ending=ending.model_copy(update={"answer": None}),
                answer_hash=ending.answer and hash_of(ending.answer),
            )
            if ending.answer:
                self.kept[attempt.scope_id, ending.answer] = ending.ended_at
            self.rows[attempt.scope_id, attempt.attempt_id] = row
        return self.rows[attempt.scope_id, attempt.attempt_id]

    @rule(
        scope_id=scopes,
        attempt_id=attempt_ids,
        status=st.sampled_from([SETTLED, RELEASED, UNKNOWN]),
        answer=st.none() | answers,
        cost=st.none() | st.integers(0, 9),
    )
    def end(self, scope_id: str, attempt_id: str, status: AttemptStatus, answer: str | None, cost: int | None) -> None:
        if (there := self.rows.get((scope_id, attempt_id))) is None:
            return
        kept = answer if status is SETTLED else None
        ending = Ending(status=status, ended_at=self.log.now(), cost_micro=cost, answer=kept)
        row = self.wait(self.log.end(there.attempt, ending))
        assert row == self.expected_end(there.attempt, ending)

    @rule(scope_id=scopes, attempt_id=attempt_ids, seconds=st.integers(1, 20))
    def renew(self, scope_id: str, attempt_id: str, seconds: int) -> None:
        there = self.rows.get((scope_id, attempt_id))
        if there is None:
            return
        until = self.log.now() + seconds
        renewed = self.wait(self.log.renew(there.attempt.key, lease_until=until))
        assert renewed == (there.status == "reserved")
        if renewed:
            attempt = there.attempt.model_copy(update={"lease_until": max(until, there.attempt.lease_until)})
            self.rows[scope_id, attempt_id] = there.model_copy(update={"attempt": attempt})

    @rule()
    def expire(self) -> None:
        now = self.log.now()
        self.drain(self.log.expire)
        for place, row in self.rows.items():
            if row.status == "reserved" and row.attempt.lease_until <= now:
                ending = Ending(status=UNKNOWN, ended_at=now, error=LEASE_LAPSED)
                self.rows[place] = row.model_copy(update={"status": UNKNOWN, "ending": ending})

    def expected_key(self, claim: Claim) -> Done | InFlight | Conflict | None:
        """The key as it is; None if it is free for this claim."""
        place = (claim.scope_id, claim.key)
        holder, until, done = self.keys.get(place, (claim, -1.0, None))
        now = self.log.now()
        expired = until <= now if done else until + holder.ttl_s <= now
        if place not in self.keys or expired:
            return None
        if holder.request_hash != claim.request_hash:
            return Conflict(holder.request_hash)
        if done:
            return done
        return None if until <= now or holder.owner == claim.owner else InFlight(holder.owner, until)

    @rule(claim=claims)
    def begin(self, claim: Claim) -> None:
        expected = self.expected_key(claim)
        assert self.wait(self.log.begin(claim)) == (expected or Started())
        if expected is None:
            self.keys[claim.scope_id, claim.key] = (claim, self.log.now() + claim.lease_s, None)

    def holds(self, claim: Claim) -> bool:
        holder, _, done = self.keys.get((claim.scope_id, claim.key), (None, 0, None))
        return holder is not None and holder.owner == claim.owner and done is None

    @rule(claim=claims, attempt_id=attempt_ids, answer=answers)
    def end_with_claim(self, claim: Claim, attempt_id: str, answer: str) -> None:
        place = (claim.scope_id, claim.key)
        holder, _, done = self.keys.get(place, (None, 0, None))
        there = self.rows.get((claim.scope_id, attempt_id))
        if there is None or (holder is not None and holder.request_hash != claim.request_hash):
            return
        ending = Ending(status=SETTLED, ended_at=self.log.now(), answer=answer)
        completion = self.wait(self.log.end_with_claim(there.attempt, ending, claim))
        row = self.expected_end(there.attempt, ending)
        assert completion.attempt == row
        if self.holds(claim) and row.answer_hash:
            assert isinstance(completion.key, Done)
            assert completion.key.answer.attempt_id == attempt_id
            assert hash_of(completion.key.answer.text) == row.answer_hash
            self.keys[place] = (claim, self.log.now() + claim.ttl_s, completion.key)
        elif done:
            assert completion.key == done
        else:
            assert isinstance(completion.key, InFlight) == (holder is not None)

    @rule(claim=claims)
    def renew_claim(self, claim: Claim) -> None:
        assert self.wait(self.log.renew_claim(claim)) == self.holds(claim)
        if self.holds(claim):
            holder, until, _ = self.keys[claim.scope_id, claim.key]
            renewed = max(until, self.log.now() + claim.lease_s)
            self.keys[claim.scope_id, claim.key] = (holder, renewed, None)

    @rule(claim=claims)
    def fail(self, claim: Claim) -> None:
        self.wait(self.log.fail(claim))
        if self.holds(claim):
            del self.keys[claim.scope_id, claim.key]

    @rule(seconds=st.sampled_from([1, 9, 10, 11, 29, 30, 31]), jump=st.sampled_from([0, 0, 3600, -86_400]))
    def time_passes(self, seconds: int, jump: int) -> None:
        self.clock.advance(seconds)
        self.clock.step(jump)

    @rule(scope_id=st.none() | scopes, age=st.integers(0, 20), accounts_too=st.booleans())
    def forget(self, scope_id: str | None, age: int, accounts_too: bool) -> None:
        before = self.log.now() - age
        operation = self.log.forget if accounts_too else self.log.forget_answers
        self.drain(operation, older_than=before, scope_id=scope_id)
        promised = {(place[0], done.answer.text) for place, (_, _, done) in self.keys.items() if done}
        for place, kept_at in list(self.kept.items()):
            if kept_at < before and scope_id in (None, place[0]) and place not in promised:
                del self.kept[place]
        for place, row in list(self.rows.items()):
            if accounts_too and row.ending and row.ending.ended_at < before and scope_id in (None, place[0]):
                del self.rows[place]

    @rule()
    def forget_keys(self) -> None:
        self.drain(self.log.forget_keys)
        now = self.log.now()
        for place, (claim, until, done) in list(self.keys.items()):
            if (until if done else until + claim.ttl_s) <= now:
                del self.keys[place]

    @invariant()
    def the_log_agrees_with_the_model(self) -> None:
        self.wait(self.check())

    async def check(self) -> None:
        for scope_id in SCOPES:
            rows = [row for place, row in self.rows.items() if place[0] == scope_id]
            rows.sort(key=lambda row: (row.attempt.reserved_at, row.attempt.attempt_id))
            assert (await self.log.attempts(scope_id)).attempts == rows
            settled = (await self.log.attempts(scope_id, Filter(status=SETTLED))).attempts
            assert settled == [row for row in rows if row.status == SETTLED]
            self.check_sums(await self.log.totals(scope_id, "run-1"), rows)

            for text in ANSWERS:
                expected = text if (scope_id, text) in self.kept else None
                assert await self.log.answer(scope_id, hash_of(text)) == expected
            successes = [
                (row.ending.ended_at, row.attempt.attempt_id, text)
                for row in rows
                for text in ANSWERS
                if row.ending and row.answer_hash == hash_of(text) and row.attempt.request_hash == "r1"
                if (scope_id, text) in self.kept
            ]
            found = await self.log.cached(scope_id, "r1", newer_than=0)
            assert (found and (found.attempt_id, found.text)) == (max(successes)[1:] if successes else None)

    def check_sums(self, sums: RunTotals, rows: list[LoggedAttempt]) -> None:
        costs = [row.ending.cost_micro for row in rows if row.ending]
        assert (sums.attempts, sums.cost_micro) == (len(rows), sum(cost or 0 for cost in costs))
        assert sums.open + sums.settled + sums.released + sums.unknown == sums.attempts


class FaultyCallLogMachine(CallLogMachine):
    fault_rate = 0.01


_settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
CallLogMachine.TestCase.settings = _settings
FaultyCallLogMachine.TestCase.settings = _settings
test_the_call_log_behaves_like_dictionaries = CallLogMachine.TestCase
test_the_call_log_behaves_like_dictionaries_behind_faults = FaultyCallLogMachine.TestCase
