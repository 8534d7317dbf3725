"""The ledger's transactions on the store, through the shared actor, and past it: the same promises, counted once.

AGENTFLOW_KILL_ROUNDS is the number of kills of the actor at each failpoint, on each database.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray.exceptions import RaySystemError

from agent_runtime import Budget, BudgetDecision, EventFilter, Ledger
from agent_runtime.ledger.records import EventState, LedgerEvent
from agent_runtime.ledger.transactions import LedgerTransactions, StoredTransactions, prepare_ledger
from agent_runtime.ledger.writers import SqlLedgerWriter
from agentflow_serve.actor_or_store import AWAY_S
from agentflow_serve.errors import LedgerAway
from agentflow_serve.ledger_commits import MOST_AT_ONCE, LedgerCommits
from agentflow_serve.run_store import RunStore
from agentflow_serve.session_ledger import LedgerCalls, SessionLedger
from agentflow_serve.shared_commits import SharedCommits
from agentflow_serve.store_upkeep import Keeping, keep_in_order
from runtime_core.call_log.keys import Completion, Conflict, Done, InFlight
from runtime_core.call_log.log import CallLog
from runtime_core.call_log.records import AttemptStatus
from runtime_core.clock import SystemClock
from runtime_core.errors import StoreConflictError, StoreUnavailableError
from runtime_core.stores import Database, open_database
from support.call_log import claim_of, settled
from support.commits import Actor, booked
from support.commits_process import ATTEMPTS, WORKERS
from support.ledgers import SCOPE, held, who
from support.processes import lines_of
from support.stores import fresh_store_url
from support.waiting import until

KILLS = int(os.environ.get("AGENTFLOW_KILL_ROUNDS", "1"))
FAILPOINTS = ("ledger.before_commit", "ledger.after_commit_before_ack")
WAYS = ("store", "actor", "past the actor", "lost answers")


@dataclass
class Desk:
    """One replica's way to the run store, and the store itself to look at."""

    url: str
    stack: AsyncExitStack
    database: Database
    log: CallLog
    ledger: Ledger
    actor: Actor
    now: list[float]

    def shared(self, actor: Actor | None = None, **options: float) -> SharedCommits:
        commits = SharedCommits(actor or self.actor, self.url, self.database, clock=lambda: self.now[0], **options)  # type: ignore[arg-type]
        self.stack.push_async_callback(commits.drain)
        return commits

    def another_actor(self, store: RunStore | None = None, **options: float) -> Actor:
        commits = LedgerCommits(store or RunStore(self.stack, self.url), **options)  # type: ignore[arg-type]
        self.stack.push_async_callback(commits.aclose)
        return Actor(commits)

    async def events(self) -> list[LedgerEvent]:
        return (await self.ledger.list_events(SCOPE, EventFilter(type="model"), limit=100_000)).events


@pytest.fixture(params=["sqlite"])
async def desk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Desk]:
    url = await fresh_store_url(request.param, request, tmp_path)
    async with open_database(url) as database, AsyncExitStack() as stack:
        await prepare_ledger(database)
        log, ledger = CallLog(database, clock=SystemClock()), Ledger(SqlLedgerWriter(database))
        commits = LedgerCommits(RunStore(stack, url))
        stack.push_async_callback(commits.aclose)
        yield Desk(url, stack, database, log, ledger, Actor(commits), [0.0])


@pytest.fixture(params=WAYS)
def books(request: pytest.FixtureRequest, desk: Desk) -> LedgerTransactions:
    desk.actor.away, desk.actor.lost = request.param == "past the actor", request.param == "lost answers"
    return StoredTransactions(desk.database) if request.param == "store" else desk.shared()


both = pytest.mark.parametrize("desk", ["sqlite", "postgres"], indirect=True)


@both
async def test_of_many_at_once_as_many_are_reserved_as_fit_and_each_is_counted_once(
    desk: Desk, books: LedgerTransactions
) -> None:
    await desk.ledger.set_budget(Budget(scope_id=SCOPE, max_requests_daily=20, max_tokens_total=10_000))
    calls = [booked(desk.log, f"a-{number}") for number in range(50)]
    refusals = await asyncio.gather(*(books.reserve(*call) for call in calls))
    admitted = [call for call, refusal in zip(calls, refusals, strict=True) if refusal is None]
    refused = next(refusal for refusal in refusals if refusal is not None)
    assert len(admitted) == 20
    assert (refused.limit, refused.reason, refused.account.scope_id) == ("max_requests_daily", "budget_exceeded", SCOPE)
    assert refused.error().status == 429
    assert await asyncio.gather(*(books.reserve(*call) for call in admitted)) == [None] * 20, "the same again is fine"
    for _ in range(2):
        rows = await asyncio.gather(
            *(books.end(attempt, settled(desk.log), entry) for attempt, entry in admitted),
        )
        assert {row.status for row in rows} == {AttemptStatus.SETTLED}
    usage = await desk.ledger.usage(SCOPE)
    assert (usage.requests, usage.turns, usage.total_tokens, usage.cost_micro) == (20, 20, 20 * 15, 20 * 7)
    assert await held(desk.database) == (0, 0, 0)
    rows = (await desk.log.attempts(SCOPE)).attempts
    logged = {row.attempt.attempt_id for row in rows if row.status is not AttemptStatus.RELEASED}
    assert logged == {attempt.attempt_id for attempt, _ in admitted}


async def test_rows_and_keys_come_back_as_the_store_gives_them(desk: Desk, books: LedgerTransactions) -> None:
    (attempt, entry), claim = booked(desk.log, "a", run_id="r", node="n", trace_id="0" * 31 + "1"), claim_of("me")
    ending = settled(desk.log, '"hello"')
    await desk.log.begin(claim)
    await books.reserve(attempt, entry)
    completion = await books.end_with_claim(attempt, ending, entry, claim=claim, now=desk.log.now())
    [row] = (await desk.log.attempts(SCOPE)).attempts
    assert completion.attempt == row
    assert isinstance(completion.key, Done)
    assert (completion.key.answer.attempt_id, completion.key.answer.text) == ("a", '"hello"')
    assert await books.end(attempt, ending, entry) == row

    assert await _completed(desk, books, "b", claim_of("late")) == Done(completion.key.answer)
    assert isinstance(await _completed(desk, books, "c", claim_of("x", request_hash="another")), Conflict)
    await desk.log.begin(claim_of("holder", key="held"))
    assert isinstance(await _completed(desk, books, "d", claim_of("x", key="held")), InFlight)
    assert await _completed(desk, books, "e", claim_of("x", key="free")) is None


async def _completed(desk: Desk, books: LedgerTransactions, attempt_id: str, claim: object) -> object:
    attempt, entry = booked(desk.log, attempt_id)
    await books.reserve(attempt, entry)
    ending = settled(desk.log)
    completion: Completion = await books.end_with_claim(attempt, ending, entry, claim=claim, now=desk.log.now())  # type: ignore[arg-type]
    return completion.key


@both
async def test_a_command_that_cannot_be_fails_alone(desk: Desk, books: LedgerTransactions) -> None:
    await books.reserve(*booked(desk.log, "taken"))
    never, its_entry = booked(desk.log, "never")
    outcomes = await asyncio.gather(
        books.reserve(*booked(desk.log, "before")),
        books.reserve(*booked(desk.log, "taken", call_id="another call")),
        books.end(never, settled(desk.log), its_entry),
        books.reserve(*booked(desk.log, "after")),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [type(None), StoreConflictError, StoreConflictError, type(None)]
    assert {event.event_id for event in await desk.events()} == {"taken", "before", "after"}


async def test_what_comes_while_a_commit_runs_goes_together(desk: Desk) -> None:
    commits, desk.actor.gate = desk.shared(), asyncio.Event()
    reserving = [asyncio.create_task(commits.reserve(*booked(desk.log, f"a-{number}"))) for number in range(600)]
    await until(lambda: desk.actor.calls)
    await asyncio.sleep(0)
    desk.actor.gate.set()
    await asyncio.gather(*reserving)
    assert sum(desk.actor.calls) == 600
    assert len(desk.actor.calls) <= 4
    assert max(desk.actor.calls) == MOST_AT_ONCE


async def test_an_actor_that_does_not_answer_is_passed_by_for_a_while(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    commits = desk.shared()
    desk.actor.away = True
    for number in range(3):
        await commits.reserve(*booked(desk.log, f"a-{number}"))
    assert len(desk.actor.calls) == 1
    desk.actor.away, desk.now[0] = False, AWAY_S
    await commits.reserve(*booked(desk.log, "b"))
    assert len(desk.actor.calls) == 2
    assert len(await desk.events()) == 4
    await commits.reserve(*booked(desk.log, "c"))
    assert [record.message for record in caplog.records if record.name == "agentflow_serve.actor_or_store"] == [
        "The model calls of this flow go to the run store past its shared actor: away",
        "The shared actor of this flow answers again, and the model calls go through it.",
    ]


async def test_a_caller_who_leaves_takes_nobodys_commit_along(desk: Desk) -> None:
    commits, desk.actor.gate = desk.shared(), asyncio.Event()
    attempt, entry = booked(desk.log, "mine")
    mine = asyncio.create_task(commits.reserve(attempt, entry))
    yours = asyncio.create_task(commits.reserve(*booked(desk.log, "yours")))
    await until(lambda: desk.actor.calls)
    mine.cancel()
    await asyncio.wait({mine})
    assert mine.cancelled()
    desk.actor.gate.set()
    assert await yours is None
    await commits.drain()
    assert {event.event_id for event in await desk.events()} == {"mine", "yours"}
    released = settled(desk.log, None, status=AttemptStatus.RELEASED, usage=None, cost_micro=None)
    await commits.end(attempt, released, entry)
    states = {event.event_id: event.state for event in await desk.events()}
    assert states == {"mine": EventState.RELEASED, "yours": EventState.RESERVED}


async def test_two_actors_at_once_count_once(desk: Desk) -> None:
    """The old one stands still with commands in its hands, a new one serves, and then the old one goes on."""
    await desk.ledger.set_budget(Budget(scope_id=SCOPE, max_requests_total=10))
    stopped = desk.another_actor()
    stopped.gate = asyncio.Event()
    calls = [booked(desk.log, f"a-{number}") for number in range(20)]
    old, new = desk.shared(stopped), desk.shared()
    stale = [asyncio.create_task(old.reserve(*call)) for call in calls]
    await until(lambda: stopped.calls)
    fresh = await asyncio.gather(*(new.reserve(*call) for call in calls))
    for (attempt, entry), refusal in zip(calls[:5], fresh[:5], strict=True):
        assert refusal is None
        await new.end(attempt, settled(desk.log), entry)
    stopped.gate.set()
    assert [refusal is None for refusal in await asyncio.gather(*stale)] == [True] * 10 + [False] * 10
    usage = await desk.ledger.usage(SCOPE)
    assert (usage.requests, usage.open, usage.total_tokens) == (10, 5, 5 * 15 + 5 * 100)
    assert (await held(desk.database))[2] == 5


@both
async def test_kill_9_of_the_actor_around_its_commit_loses_nothing_and_counts_nothing_twice(desk: Desk) -> None:
    await desk.ledger.set_budget(Budget(scope_id=SCOPE, max_tokens_total=10**9))
    points = [f"{name}@{3 + 4 * turn}" for turn in range(KILLS) for name in FAILPOINTS]
    said = await lines_of("commits_process", "kill", desk.url, *points)
    assert [status for _, status in said["died"]] == ["-9"] * len(points)
    await _check_that_each_is_counted_once(desk, said, runs=len(points))


async def test_an_actor_that_stood_still_for_a_while_counts_nothing_again(desk: Desk) -> None:
    await desk.ledger.set_budget(Budget(scope_id=SCOPE, max_tokens_total=10**9))
    said = await lines_of("commits_process", "stop", desk.url, "ledger.before_commit@3")
    assert [status for _, status in said["died"]] == ["0"]
    await _check_that_each_is_counted_once(desk, said, runs=1)


async def _check_that_each_is_counted_once(desk: Desk, said: dict[str, list[list[str]]], *, runs: int) -> None:
    sent = {attempt_id for [attempt_id] in said["settled"]}
    assert len(sent) == runs * WORKERS * ATTEMPTS
    events = await desk.events()
    assert {event.event_id for event in events} == sent
    assert {event.state for event in events} == {EventState.SETTLED}
    assert await held(desk.database) == (0, 0, 0)
    left = 10**9 - 15 * len(sent)
    assert await desk.ledger.check_budget(who(), pending_tokens=left) == BudgetDecision.ALLOW
    assert await desk.ledger.check_budget(who(), pending_tokens=left + 1) == BudgetDecision.DENY


async def test_what_was_refused_past_a_late_actor_is_not_reserved_by_it_afterwards(desk: Desk) -> None:
    await desk.ledger.set_budget(Budget(scope_id=SCOPE, max_requests_total=1, max_turns_total=5))
    holder, its_entry = booked(desk.log, "holder")
    store = StoredTransactions(desk.database)
    await store.reserve(holder, its_entry)
    desk.actor.late = asyncio.Event()
    commits = desk.shared()
    assert await commits.reserve(*booked(desk.log, "refused")) is not None
    assert await commits.reserve(*booked(desk.log, "refused while it is passed by")) is not None
    released = settled(desk.log, None, status=AttemptStatus.RELEASED, usage=None, cost_micro=None)
    await store.end(holder, released, its_entry)
    desk.actor.late.set()
    await asyncio.gather(*desk.actor.behind)
    states = {event.event_id: event.state for event in await desk.events()}
    assert states == {"holder": EventState.RELEASED, "refused": EventState.RELEASED}
    rows = {row.attempt.attempt_id: row.status for row in (await desk.log.attempts(SCOPE)).attempts}
    assert rows == dict.fromkeys(states, AttemptStatus.RELEASED)
    assert (await held(desk.database), (await desk.ledger.usage(SCOPE)).turns) == ((0, 0, 0), 1)
    assert await store.reserve(*booked(desk.log, "next")) is None


async def test_a_flood_waits_its_turn_and_who_waits_too_long_hears_of_it(desk: Desk) -> None:
    """Ten thousand at once on a store that stands still: a bounded number is taken on, the others are told to wait."""
    commits, desk.actor.gate = desk.shared(most_waiting=100, patience_s=0.05), asyncio.Event()
    attempt, entry = booked(desk.log, "first")
    callers = [asyncio.create_task(commits.reserve(*booked(desk.log, f"a-{number}"))) for number in range(10_000)]
    await until(lambda: sum(caller.done() for caller in callers) == 9_900, within_s=30)
    late = {type(caller.exception()) for caller in callers if caller.done()}
    assert late == {StoreUnavailableError}
    desk.actor.gate.set()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert outcomes.count(None) == 100
    assert len(await desk.events()) == 100
    assert await commits.reserve(attempt, entry) is None, "and then it goes on"


async def test_the_actors_queue_is_bounded_too(desk: Desk) -> None:
    """What is being committed and what waits has a bound; the others are refused, and their replicas may come again."""
    gate = asyncio.Event()
    actor = desk.another_actor(SlowStore(desk.stack, desk.url, gate), most_calls=2, patience_s=0.05)
    replicas = [desk.shared(actor) for _ in range(8)]
    calls = [booked(desk.log, f"a-{number}") for number in range(8)]
    callers = [asyncio.create_task(replica.reserve(*call)) for replica, call in zip(replicas, calls, strict=True)]
    await until(lambda: sum(caller.done() for caller in callers) >= 4)
    gate.set()
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    refused = sum(isinstance(outcome, StoreUnavailableError) for outcome in outcomes)
    assert refused >= 4
    assert outcomes.count(None) == len(await desk.events()) == 8 - refused > 0


async def test_a_store_is_kept_in_order_as_soon_as_somebody_does_it(desk: Desk) -> None:
    attempt, entry = booked(desk.log, "left", lease_until=desk.log.now())
    await desk.shared().reserve(attempt, entry)
    keeping = asyncio.create_task(keep_in_order(RunStore(desk.stack, desk.url), Keeping(desk.url, None)))
    while [event.state for event in await desk.events()] != [EventState.UNKNOWN]:
        await asyncio.sleep(0.005)
    keeping.cancel()
    await asyncio.wait({keeping})


async def test_a_commit_that_cannot_be_answered_leaves_the_queue_at_work(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that cannot be written down belongs to its caller; the next call is served."""

    def broken(*_: object) -> object:
        raise ValueError("no such result")

    commits = desk.shared(desk.another_actor())
    with monkeypatch.context() as patch:
        patch.setattr("agentflow_serve.ledger_commits.result_to_wire", broken)
        with pytest.raises(ValueError, match="no such result"):
            await asyncio.wait_for(commits.reserve(*booked(desk.log, "a")), 20)
    assert await asyncio.wait_for(commits.reserve(*booked(desk.log, "b")), 20) is None


async def test_a_replica_sends_again_after_its_sender_was_stopped(desk: Desk) -> None:
    commits, desk.actor.gate = desk.shared(), asyncio.Event()
    stopped = asyncio.create_task(commits.reserve(*booked(desk.log, "a")))
    await until(lambda: desk.actor.calls)
    [sender] = [task for task in asyncio.all_tasks() if "SharedCommits._send" in repr(task.get_coro())]
    sender.cancel()
    await asyncio.wait({sender})
    desk.actor.gate.set()
    assert await asyncio.wait_for(commits.reserve(*booked(desk.log, "b")), 20) is None
    stopped.cancel()
    await asyncio.wait({stopped})


async def test_another_time_to_keep_calls_counts_while_the_actor_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    working: list[Keeping] = []

    async def keep(_: RunStore, keeping: Keeping) -> None:
        working.append(keeping)
        try:
            await asyncio.Event().wait()
        finally:
            working.remove(keeping)

    monkeypatch.setattr("agentflow_serve.session_ledger.keep_in_order", keep)
    before, actor = asyncio.all_tasks(), SessionLedger(600.0)
    old, new, other = Keeping("sqlite:///a", 10.0), Keeping("sqlite:///a", 5.0), Keeping("sqlite:///b", None)
    for keeping in (old, other, old, new, new):
        await actor.heartbeat(keeping)
        await asyncio.sleep(0)
    await until(lambda: working == [other, new])
    mine = asyncio.all_tasks() - before
    for task in mine:
        task.cancel()
    await asyncio.wait(mine)


async def test_whatever_ray_says_of_the_actor_it_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(_: str) -> object:
        raise RaySystemError("the control store is away")

    monkeypatch.setattr("agentflow_serve.session_ledger.session_ledger", nowhere)
    with pytest.raises(LedgerAway, match="does not answer"):
        await LedgerCalls("desk").call("ledger", timeout_s=1)


class SlowStore(RunStore):
    """A store that cannot be opened before `gate` is."""

    def __init__(self, stack: AsyncExitStack, url: str, gate: asyncio.Event) -> None:
        super().__init__(stack, url)
        self._gate = gate

    async def database(self) -> Database:
        await self._gate.wait()
        return await super().database()
