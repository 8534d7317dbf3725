"""What the call log promises on every database, alone and behind injected faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from runtime_core.call_log.finds import Filter
from runtime_core.call_log.keys import Claim, Conflict, Done, InFlight, Started
from runtime_core.call_log.records import LEASE_LAPSED, AttemptStatus, Ending
from runtime_core.clock import ManualClock
from runtime_core.errors import IdentityError, StoreConflictError, StoreValueError
from runtime_core.stores import Database
from support.call_log import (
    RELEASED,
    SETTLED,
    UNKNOWN,
    RepeatingLog,
    attempt_of,
    claim_of,
    execute_once,
    open_log_database,
    prepared,
    settled,
)
from support.stores import fresh_store_url

RESERVED = AttemptStatus.RESERVED


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "sqlite", "postgres", "faulty memory", "faulty postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    *faulty, kind = request.param.split()
    url = await fresh_store_url(kind, request, tmp_path)
    async with open_log_database(url, fault_rate=0.33 if faulty else 0.0) as opened:
        yield opened


@pytest.fixture
async def log(database: Database, clock: ManualClock) -> RepeatingLog:
    return RepeatingLog(await prepared(database, clock))


async def status_of(log: RepeatingLog, attempt_id: str = "attempt-1", scope_id: str = "tenant-1") -> AttemptStatus:
    page = await log.attempts(scope_id)
    return {row.attempt.attempt_id: row.status for row in page.attempts}[attempt_id]


async def test_an_attempt_reserved_again_is_the_same_row(log: RepeatingLog) -> None:
    attempt = attempt_of(log, run_id="run-1", node="a", trace_id="t1", max_output_tokens=9)
    await log.reserve(attempt)
    await log.renew(attempt.key, lease_until=attempt.lease_until + 5)
    await log.reserve(attempt)
    [row] = (await log.attempts("tenant-1")).attempts
    assert row.attempt == attempt.model_copy(update={"lease_until": attempt.lease_until + 5})
    assert (row.status, row.ending, row.answer_hash) == (RESERVED, None, None)


@pytest.mark.parametrize("other", [{"number": 2}, {"node": "b"}, {"reserved_at": 1.0}])
async def test_another_attempt_with_the_same_id_is_a_conflict(log: RepeatingLog, other: dict[str, Any]) -> None:
    attempt = attempt_of(log)
    await log.reserve(attempt)
    with pytest.raises(StoreConflictError, match="another attempt"):
        await log.reserve(attempt.model_copy(update=other))
    await log.reserve(attempt_of(log, scope_id="tenant-2", **other))


async def test_an_ending_is_returned_as_it_is_read(log: RepeatingLog) -> None:
    attempt = attempt_of(log)
    await log.reserve(attempt)
    row = await log.end(attempt, settled(log))
    assert (await log.attempts("tenant-1")).attempts == [row]
    assert row.ending == settled(log, answer=None)
    assert await log.answer("tenant-1", row.answer_hash) == '"hello"'
    assert await log.answer("tenant-2", row.answer_hash) is None


@pytest.mark.parametrize("first", [SETTLED, RELEASED, UNKNOWN])
async def test_the_first_ending_wins(log: RepeatingLog, first: AttemptStatus) -> None:
    attempt = attempt_of(log)
    await log.reserve(attempt)
    row = await log.end(attempt, Ending(status=first, ended_at=log.now(), error="first"))
    assert await log.end(attempt, settled(log, '"late"')) == row
    assert await log.cached("tenant-1", "request-1", newer_than=0) is None
    assert not await log.renew(attempt.key, lease_until=log.now() + 99)


async def test_an_ending_needs_a_reserved_attempt_and_makes_sense(log: RepeatingLog) -> None:
    attempt = attempt_of(log)
    with pytest.raises(StoreConflictError, match="never reserved"):
        await log.end(attempt, settled(log))
    await log.reserve(attempt)
    for nonsense in (
        Ending(status=RESERVED, ended_at=log.now()),
        settled(log, status=UNKNOWN),
        settled(log, error="provider_malformed"),
        settled(log, "half of a pair: \ud83d"),
    ):
        with pytest.raises(StoreValueError):
            await log.end(attempt, nonsense)
    assert await status_of(log) is RESERVED


@pytest.mark.parametrize("late", [SETTLED, RELEASED, UNKNOWN])
async def test_a_lapsed_lease_is_unknown_until_its_owner_says_more(
    log: RepeatingLog, clock: ManualClock, late: AttemptStatus
) -> None:
    attempt = attempt_of(log)
    await log.reserve(attempt)
    clock.advance(60)
    await log.expire()
    [lapsed] = (await log.attempts("tenant-1")).attempts
    assert lapsed.ending == Ending(status=UNKNOWN, ended_at=log.now(), error=LEASE_LAPSED)

    row = await log.end(attempt, Ending(status=late, ended_at=log.now(), error="late"))
    assert row.status is late
    assert await log.end(attempt, settled(log)) == row
    assert (await log.totals("tenant-1", "run-1")).attempts == 0
    assert len((await log.attempts("tenant-1")).attempts) == 1


@pytest.mark.parametrize("kind", ["memory", "postgres"])
async def test_expiry_is_bounded_and_takes_the_oldest_first(
    clock: ManualClock, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    async with open_log_database(await fresh_store_url(kind, request, tmp_path)) as database:
        log = await prepared(database, clock)
        for number in range(5):
            await log.reserve(attempt_of(log, f"a{number}", lease_until=log.now() + 10 - number))
        renewed = attempt_of(log, "a4")
        assert await log.renew(renewed.key, lease_until=log.now() + 99)
        assert await log.renew(renewed.key, lease_until=log.now() + 1), "a lease never moves back"
        clock.advance(10)
        assert [row.attempt.attempt_id for row in await log.expire(limit=3)] == ["a3", "a2", "a1"]
        assert [row.attempt.attempt_id for row in await log.expire(limit=3)] == ["a0"]
        assert await log.expire() == []


@pytest.mark.parametrize("jump", [3600, -3600, 86_400, -86_400])
async def test_a_wall_clock_that_jumps_ends_no_lease_early_and_revives_none(
    log: RepeatingLog, clock: ManualClock, jump: float
) -> None:
    await log.reserve(attempt_of(log, "old"))
    assert isinstance(await log.begin(claim_of("first", lease_s=60)), Started)
    clock.advance(59)
    clock.step(jump)
    await log.expire()
    assert await status_of(log, "old") is RESERVED
    assert isinstance(await log.begin(claim_of("second")), InFlight)
    clock.advance(1)
    await log.expire()
    assert await status_of(log, "old") is UNKNOWN
    assert isinstance(await log.begin(claim_of("second")), Started)
    clock.step(-3 * jump)
    assert await status_of(log, "old") is UNKNOWN
    assert isinstance(await log.begin(claim_of("third")), InFlight)
    assert not await log.renew_claim(claim_of("first"))


async def test_an_owner_in_another_time_loses_its_claim_but_not_its_money(database: Database) -> None:
    """Two processes whose clocks differ by an hour: one execution too many, never a second result."""
    behind, ahead = ManualClock(), ManualClock()
    ahead.step(3600)
    slow = RepeatingLog(await prepared(database, behind))
    fast = RepeatingLog(await prepared(database, ahead))
    for log, name in ((slow, "slow"), (fast, "fast")):
        assert isinstance(await log.begin(claim_of(name)), Started)
        await log.reserve(attempt_of(log, name))
    await fast.expire()

    lost = await slow.end_with_claim(attempt_of(slow, "slow"), settled(slow, '"slow"'), claim_of("slow"))
    assert lost.attempt.status is SETTLED
    assert isinstance(lost.key, InFlight) and lost.key.owner == "fast"
    won = await fast.end_with_claim(attempt_of(fast, "fast"), settled(fast, '"fast"'), claim_of("fast"))
    assert isinstance(won.key, Done) and won.key.answer.text == '"fast"'
    assert await slow.begin(claim_of("slow")) == won.key


async def test_a_key_gives_its_first_answer_until_it_expires(log: RepeatingLog, clock: ManualClock) -> None:
    claim = claim_of("me", ttl_s=100)
    assert await execute_once(log, claim, "attempt-1") == ('"by-me"', True)
    assert await execute_once(log, claim, "attempt-2") == ('"by-me"', False)
    assert isinstance(await log.begin(claim_of("me", scope_id="tenant-2")), Started)
    assert await log.begin(claim_of("other", request_hash="request-2")) == Conflict("request-1")
    clock.advance(99)
    assert isinstance(await log.begin(claim_of("again")), Done)
    clock.advance(1)
    assert isinstance(await log.begin(claim_of("other", request_hash="request-2")), Started)


async def test_a_failure_frees_the_key(log: RepeatingLog) -> None:
    assert isinstance(await log.begin(claim_of("first")), Started)
    await log.fail(claim_of("second"))
    assert isinstance(await log.begin(claim_of("second")), InFlight)
    assert isinstance(await log.begin(claim_of("first")), Started), "the owner may ask again"
    await log.fail(claim_of("first"))
    assert isinstance(await log.begin(claim_of("second", request_hash="request-2")), Started)


async def test_a_renewed_claim_is_not_taken_over(log: RepeatingLog, clock: ManualClock) -> None:
    first = claim_of("first", lease_s=10, ttl_s=30)
    assert isinstance(await log.begin(first), Started)
    clock.advance(9)
    assert await log.renew_claim(first)
    clock.advance(9)
    assert await log.begin(claim_of("second")) == InFlight("first", log.now() + 1)
    clock.advance(30)
    other = claim_of("other", request_hash="request-2")
    assert await log.begin(other) == Conflict("request-1"), "it lapsed, but it is not forgotten yet"
    clock.advance(1)
    assert isinstance(await log.begin(other), Started)


async def test_a_lapsed_claim_completes_if_nobody_took_over(log: RepeatingLog, clock: ManualClock) -> None:
    claim = claim_of("slow", lease_s=10)
    assert isinstance(await log.begin(claim), Started)
    await log.reserve(attempt_of(log))
    clock.advance(11)
    completion = await log.end_with_claim(attempt_of(log), settled(log), claim)
    assert isinstance(completion.key, Done)


async def test_a_claim_completes_with_an_answer_only(log: RepeatingLog) -> None:
    attempt = attempt_of(log)
    assert isinstance(await log.begin(claim_of("me")), Started)
    await log.reserve(attempt)
    with pytest.raises(StoreValueError, match="fail the claim"):
        await log.end_with_claim(attempt, settled(log, None), claim_of("me"))
    await log.end(attempt, Ending(status=RELEASED, ended_at=log.now()))
    completion = await log.end_with_claim(attempt, settled(log), claim_of("me"))
    assert completion.attempt.status is RELEASED
    assert isinstance(completion.key, InFlight)


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_key_has_a_bounded_length(key: str) -> None:
    with pytest.raises(StoreValueError):
        claim_of("me", key=key)
    with pytest.raises(IdentityError):
        Claim("", "key", request_hash="r", owner="o")


async def test_twenty_callers_of_one_key_are_one_execution(log: RepeatingLog) -> None:
    results = await asyncio.gather(*(execute_once(log, claim_of(f"c{n}"), f"a{n}") for n in range(20)))
    assert len({answer for answer, _ in results}) == 1
    assert sum(executed for _, executed in results) == 1
    assert len((await log.attempts("tenant-1")).attempts) == 1


async def test_a_dead_executor_is_taken_over_by_exactly_one(log: RepeatingLog, clock: ManualClock) -> None:
    await log.begin(claim_of("dead"))
    clock.advance(60)
    states = await asyncio.gather(*(log.begin(claim_of(f"c{n}")) for n in range(20)))
    assert sum(isinstance(state, Started) for state in states) == 1


async def test_the_newest_success_to_a_request_is_cached(log: RepeatingLog, clock: ManualClock) -> None:
    for number, answer in enumerate(['"one"', '"two"', None]):
        clock.advance(1)
        attempt = attempt_of(log, f"a{9 - number}")
        await log.reserve(attempt)
        await log.end(attempt, settled(log, answer))
    found = await log.cached("tenant-1", "request-1", newer_than=0)
    assert (found.attempt_id, found.text) == ("a8", '"two"')
    assert await log.cached("tenant-1", "request-1", newer_than=log.now() - 1) is None
    assert await log.cached("tenant-1", "request-2", newer_than=0) is None
    assert await log.cached("tenant-2", "request-1", newer_than=0) is None


async def test_attempts_are_read_in_pages_through_a_filter(log: RepeatingLog, clock: ManualClock) -> None:
    ids_by_time = ["a6", "a4", "a5", "a2", "a3", "a0", "a1"]
    for number in range(7):
        clock.advance(number % 2)  # some share their time
        attempt = attempt_of(log, ids_by_time[number], run_id=f"run-{number % 2}")
        await log.reserve(attempt)
        if number > 4:
            await log.end(attempt, settled(log))

    async def ids(**which: Any) -> list[str]:
        found: list[str] = []
        after = None
        while True:
            page = await log.attempts("tenant-1", Filter(**which), after=after, limit=2)
            found += [row.attempt.attempt_id for row in page.attempts]
            if (after := page.next) is None:
                return found

    assert await ids() == ids_by_time
    assert await ids(run_id="run-1") == ["a4", "a2", "a0"]
    assert await ids(status=SETTLED, run_id="run-0") == ["a1"]


async def test_a_run_is_summed_up_by_role_and_node(log: RepeatingLog, clock: ManualClock) -> None:
    endings = {
        "a1": ({"role": "writer", "node": "draft"}, settled(log)),
        "a2": ({"role": "writer", "node": "draft", "number": 2}, settled(log, cost_micro=None)),
        "a3": ({"role": "judge", "node": "check", "call_id": "call-2"}, Ending(status=RELEASED, ended_at=log.now())),
        "a4": ({"role": "judge", "call_id": "call-3"}, None),
        "a5": ({"role": "judge", "call_id": "call-4", "lease_until": log.now() + 1}, None),
    }
    for attempt_id, (facts, ending) in endings.items():
        await log.reserve(attempt_of(log, attempt_id, run_id="run-1", **facts))
        if ending is not None:
            await log.end(attempt_of(log, attempt_id), ending)
    clock.advance(1)
    await log.expire()
    await log.reserve(attempt_of(log, "a1", scope_id="tenant-2", run_id="run-1"))

    sums = await log.totals("tenant-1", "run-1")
    assert (sums.calls, sums.attempts, sums.open) == (4, 5, 1)
    assert (sums.settled, sums.released, sums.unknown) == (2, 1, 1)
    assert (sums.input_tokens, sums.output_tokens, sums.cached_tokens, sums.reasoning_tokens) == (20, 10, 4, 2)
    assert (sums.cost_micro, sums.unpriced, sums.estimated) == (7, 2, 0)
    assert {role: part.attempts for role, part in sums.by_role.items()} == {"writer": 2, "judge": 3}
    assert {node: part.calls for node, part in sums.by_node.items()} == {"draft": 1, "check": 1}


async def until_nothing(forget: Callable[[], Any]) -> None:
    while await forget():
        pass


async def test_old_attempts_are_forgotten_and_their_answers_when_no_key_needs_them(
    log: RepeatingLog, clock: ManualClock
) -> None:
    await execute_once(log, claim_of("me", ttl_s=100), "a1")
    [row] = (await log.attempts("tenant-1")).attempts
    await log.reserve(attempt_of(log, "open"))
    await log.reserve(attempt_of(log, scope_id="tenant-2"))
    await log.end(attempt_of(log, scope_id="tenant-2"), settled(log))
    clock.advance(50)

    await until_nothing(lambda: log.forget(older_than=log.now(), scope_id="tenant-0", limit=1))
    assert len((await log.attempts("tenant-1")).attempts) == 2
    await until_nothing(lambda: log.forget(older_than=log.now(), scope_id="tenant-1", limit=1))
    assert [row.attempt.attempt_id for row in (await log.attempts("tenant-1")).attempts] == ["open"]
    assert len((await log.attempts("tenant-2")).attempts) == 1
    assert (await log.begin(claim_of("again"))).answer.text == '"by-me"'
    clock.advance(50)
    await until_nothing(log.forget_keys)
    await until_nothing(lambda: log.forget(older_than=log.now()))
    assert await log.answer("tenant-1", row.answer_hash) is None


async def test_an_answer_is_as_old_as_the_last_attempt_that_gave_it(log: RepeatingLog, clock: ManualClock) -> None:
    for attempt_id in ("a1", "a2"):
        await log.reserve(attempt_of(log, attempt_id))
        row = await log.end(attempt_of(log, attempt_id), settled(log))
        clock.advance(10)
    await until_nothing(lambda: log.forget(older_than=log.now() - 10))
    assert await log.answer("tenant-1", row.answer_hash) == '"hello"'
    await until_nothing(lambda: log.forget(older_than=log.now()))
    assert await log.answer("tenant-1", row.answer_hash) is None


async def test_forgotten_answers_leave_the_accounts(log: RepeatingLog, clock: ManualClock) -> None:
    for scope_id in ("tenant-1", "tenant-2"):
        await log.reserve(attempt_of(log, scope_id=scope_id, run_id="run-1"))
        row = await log.end(attempt_of(log, scope_id=scope_id), settled(log))
    clock.advance(1)
    await until_nothing(lambda: log.forget_answers(older_than=log.now(), scope_id="tenant-1"))
    assert await log.answer("tenant-1", row.answer_hash) is None
    assert await log.answer("tenant-2", row.answer_hash) == '"hello"'
    assert (await log.totals("tenant-1", "run-1")).cost_micro == 7
    await until_nothing(lambda: log.forget_answers(older_than=log.now()))
    assert await log.answer("tenant-2", row.answer_hash) is None
