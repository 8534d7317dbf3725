"""The road of a call: guard, limits, circuit, row, provider, and who may serve when the asked one cannot."""

from __future__ import annotations

import asyncio
import pickle
import random
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llm_client import (
    Admission,
    AttemptBudget,
    BreakerConfig,
    CallFailed,
    CallRateLimited,
    CallRefused,
    CallStoreError,
    CallUnavailable,
    EmbeddingSpec,
    ExecutionEngine,
    HubRouter,
    Lease,
    RequestContext,
    RequestSpec,
    ResponseCache,
    StreamEnded,
)
from llm_client.attempts import LEASE_S
from llm_client.providers.openai import OpenAIProvider
from llmhub_runtime import UnknownRoleError
from llmhub_runtime.sim import SimServer
from runtime_core.call_log.log import CallLog
from runtime_core.call_log.records import Attempt, AttemptStatus, Ending, LoggedAttempt
from runtime_core.clock import ManualClock, SystemClock
from runtime_core.context import ExecutionContext
from runtime_core.stores.memory import MemoryDatabase
from runtime_core.stores.sqlite import SqliteDatabase
from support.engine import check_books, hub_for, rig
from support.waiting import until

ASK = RequestSpec.of("Hello there", role="chat")
DOWN = {"fault": {"kind": "error", "status": 500}}
HANGS = {"fault": {"kind": "hang", "after_chunks": 2}}
LEAVING_S = 0.5


@dataclass
class Watchman:
    """A guard that admits with `admission`, refuses after `most`, and keeps what it was told."""

    admission: Admission = field(default_factory=Admission)
    most: int = 10**9
    begun: list[Attempt] = field(default_factory=list)
    ended: list[tuple[str, Ending]] = field(default_factory=list)

    async def begin(self, attempt: Attempt, request: RequestSpec | EmbeddingSpec) -> Lease:
        if len(self.begun) >= self.most:
            raise CallRefused("no more today", scope_id=attempt.scope_id, reason="spent")
        self.begun.append(attempt)
        return WatchedLease(self, attempt.attempt_id)

    def check(self) -> None:
        """Every lease ended, once."""
        assert sorted(one for one, _ in self.ended) == sorted(attempt.attempt_id for attempt in self.begun)


@dataclass
class WatchedLease:
    watchman: Watchman
    attempt_id: str

    @property
    def admission(self) -> Admission:
        return self.watchman.admission

    async def end(self, ending: Ending) -> None:
        self.watchman.ended.append((self.attempt_id, ending))


async def test_the_row_says_who_asked_for_what_and_the_answer_is_kept_with_it() -> None:
    async with rig() as made:
        context = RequestContext(tenant_id="t", user_id="u", session_id="s", job_id="j", run_id="r", node="n")
        spec = RequestSpec.of("Hello there", role="chat", max_tokens=50)
        result = await made.engine.complete(spec, context=context)
        [row] = await made.rows("t")
        attempt, [entry] = row.attempt, made.sent()
        assert (entry.attempt_id, entry.role) == (attempt.attempt_id, "chat") == (result.attempt_id, result.role)
        assert (attempt.principal_id, attempt.session_id, attempt.job_id, attempt.run_id, attempt.node) == (
            "u", "s", "j", "r", "n",
        )  # fmt: skip
        assert (attempt.trace_id, attempt.max_output_tokens) == (context.trace_id, 50)
        assert row.answer_hash and await made.log.answer("t", row.answer_hash) == result.model_dump_json()
        assert result.cost_micro == 2 * result.usage.input + 10 * result.usage.output
        assert made.events == ["attempt.start", "attempt.settled"]


async def test_records_that_are_made_without_a_check_would_pass_it() -> None:
    guard = Watchman()
    run = ExecutionContext(
        scope_id="t", principal_id="u", session_id="s", deadline=datetime.now(UTC) + timedelta(hours=1)
    )
    context = RequestContext.of_run(run, node="n")
    async with rig(guard=guard) as made:
        answer = await made.engine.complete(RequestSpec.of("Hello", role="chat", max_tokens=2**60), context=context)
        with pytest.raises(CallFailed):
            made.reply(**DOWN)
            await made.engine.complete(ASK)
        [row] = await made.rows("t")
    endings = [ending for _, ending in guard.ended]
    for record in (context, answer, answer.usage, *guard.begun, *endings, pickle.loads(pickle.dumps(guard.begun[0]))):
        assert type(record).model_validate(record.model_dump()) == record
        assert record.model_copy() == record
    assert row.attempt == guard.begun[0]


async def test_the_guard_is_asked_before_and_told_after_each_attempt() -> None:
    guard = Watchman(most=4)
    async with rig(guard=guard) as made:
        made.script({"match": {"times": 1}, "reply": DOWN})
        await made.engine.complete(ASK)
        made.reply(**HANGS)
        async with aclosing(made.engine.stream(ASK)) as events:
            await anext(events)
        made.reply(**DOWN)
        with pytest.raises(CallRefused):
            await made.engine.complete(ASK)
        endings = [(ending.status.value, ending.error) for _, ending in guard.ended]
        assert endings == [
            ("released", "provider_unavailable"),
            ("settled", None),
            ("unknown", "cancelled"),
            ("released", "provider_unavailable"),
        ]
        assert [row.attempt.attempt_id for row in await made.rows()] == [attempt.attempt_id for attempt in guard.begun]
        guard.check()
        with pytest.raises(CallRefused):
            [event async for event in made.engine.stream(ASK)]
        assert len(made.sent()) == 4


async def test_the_guard_may_cap_the_answer_and_send_the_call_elsewhere() -> None:
    guard = Watchman(admission=Admission(max_tokens=3, role="other"))
    async with rig(guard=guard, cache=ResponseCache()) as made:
        result = await made.engine.complete(RequestSpec.of("Hello there", role="chat", max_tokens=50))
        assert (result.role, result.finish_reason, result.usage.output) == ("other", "length", 3)
        row = await made.row()
        assert (row.attempt.role, row.attempt.model, row.attempt.max_output_tokens) == ("other", "o", 3)
        # Nobody asked for this one: it is not the answer to the request that was made.
        assert "cache.store" not in made.events
        guard.check()


async def test_a_full_log_stops_a_call_before_it_is_sent() -> None:
    guard = Watchman()
    async with rig(guard=guard, database=MemoryDatabase(max_bytes=256 * 1024)) as made:
        with pytest.raises(CallStoreError):
            for number in range(1000):
                await made.engine.complete(RequestSpec.of(f"{number} {'x' * 2000}", role="chat"))
        sent, rows = made.sent(), await made.rows()
        assert 0 < len(sent) <= len(rows) < 1000
        guard.check()
        check_books(rows, sent, ended=False)


async def test_a_fallback_serves_and_its_answer_is_not_taken_for_the_other_ones() -> None:
    roles = {"chat": {"fallback": ["second", "third"]}, "second": {"provider": "sim", "model": "2", "mode": "chat"}}
    roles["third"] = {**roles["second"], "model": "3"}
    async with rig(roles=roles, cache=ResponseCache()) as made:
        made.script({"match": {"role": "chat"}, "reply": DOWN}, {"match": {"role": "second"}, "reply": DOWN})
        result = await made.engine.complete(ASK)
        assert (result.role, result.attempts) == ("third", 7)
        assert [row.attempt.role for row in await made.rows()] == ["chat"] * 3 + ["second"] * 3 + ["third"]
        assert made.events.count("attempt.fallback") == 2
        made.reply(answer="back again")
        assert (await made.engine.complete(ASK)).content == "back again"
        # A request that is wrong is wrong everywhere.
        made.reply(fault={"kind": "error", "status": 400})
        sent = len(made.sent())
        with pytest.raises(Exception, match="400"):
            await made.engine.complete(RequestSpec.of("new", role="chat"))
        assert len(made.sent()) == sent + 1


async def test_node_attempts_and_engine_attempts_are_one_count() -> None:
    async with rig() as made:
        made.reply(**DOWN)
        budget = AttemptBudget(4)
        for _ in range(5):
            with pytest.raises(CallUnavailable):
                await made.engine.complete(ASK, attempts=budget)
        assert len(made.sent()) == len(await made.rows()) == 4


async def test_an_open_circuit_sends_nothing_until_a_probe_succeeds() -> None:
    guard = Watchman()
    config = BreakerConfig(failure_threshold=3, cooldown_s=0.2)
    async with rig(breaker_config=config, guard=guard) as made:
        made.reply(**DOWN)
        for _ in range(3):
            with pytest.raises(CallUnavailable):
                await made.engine.complete(ASK)
        assert len(made.sent()) == len(await made.rows()) == 3
        with pytest.raises(CallUnavailable) as refused:
            await made.engine.complete(ASK)
        assert 0 < (refused.value.retry_after or 0) <= 0.2
        made.reply(answer="well again")
        await asyncio.sleep(0.2)
        assert (await made.engine.complete(ASK)).content == "well again"
        assert [name for name in made.events if name.startswith("breaker")][-1] == "breaker.close"
        assert {"breaker.open", "breaker.refused"} <= set(made.events)
        guard.check()


async def test_a_role_has_no_more_calls_in_flight_than_its_limit() -> None:
    async with rig(roles={"chat": {"limits": {"concurrency": 2}}}, max_concurrency=3) as made:
        made.reply(latency_ms=30)
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, sum(entry.outcome == "open" for entry in made.sent()))
                await asyncio.sleep(0.002)

        watching = asyncio.create_task(watch())
        await asyncio.gather(*(made.engine.complete(RequestSpec.of(f"{n}", role="chat")) for n in range(8)))
        watching.cancel()
        assert most == 2


async def test_a_role_over_its_rate_is_refused_when_its_turn_comes_too_late() -> None:
    async with rig(roles={"chat": {"limits": {"requests_per_minute": 2}}}) as made:
        context = RequestContext(deadline=time.time() + 5)
        for _ in range(2):
            await made.engine.complete(ASK, context=context)
        with pytest.raises(CallRateLimited) as refused:
            await made.engine.complete(ASK, context=context)
        assert refused.value.retry_after == pytest.approx(30, abs=3)
        assert len(made.sent()) == 2


async def test_cached_answers_stay_in_their_scope_and_survive_a_restart(tmp_path: Path) -> None:
    async with SimServer() as sim:
        for first in (True, False):
            async with rig(sim=sim, database=SqliteDatabase(tmp_path / "log.db"), cache=ResponseCache()) as made:
                results = [await made.engine.complete(ASK) for _ in range(2)]
                assert [result.cached for result in results] == [not first, True]
                *_, last = [event async for event in made.engine.stream(ASK)]
                assert isinstance(last, StreamEnded) and last.result == results[1]
        async with rig(sim=sim, database=SqliteDatabase(tmp_path / "log.db"), cache=ResponseCache()) as made:
            assert not (await made.engine.complete(ASK, context=RequestContext(tenant_id="other"))).cached
            assert len(made.sent()) == 2


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_upstream_is_closed_soon_after_the_caller_left(streamed: bool) -> None:
    async with rig() as made:
        made.reply(**HANGS)

        async def ask() -> None:
            if not streamed:
                await made.engine.complete(ASK)
            async with aclosing(made.engine.stream(ASK)) as events:
                async for _ in events:
                    pass

        asking = asyncio.create_task(ask())
        await until(made.sent)
        asking.cancel()
        await until(lambda: made.sent()[0].outcome == "client_disconnected", within_s=LEAVING_S)
        with pytest.raises(asyncio.CancelledError):
            await asking
        row = await made.row()
        assert (row.status.value, row.ending and row.ending.error) == ("unknown", "cancelled")
        check_books([row], made.sent())


async def test_callers_who_leave_at_any_moment_leave_true_books_behind() -> None:
    guard, choose = Watchman(), random.Random(7)
    async with rig(guard=guard, max_concurrency=8) as made:
        made.reply(latency_ms=5, ms_per_token=0.2)

        async def ask(number: int) -> None:
            spec = RequestSpec.of(f"question {number}", role="chat")
            if number % 2:
                await made.engine.complete(spec)
            async with aclosing(made.engine.stream(spec)) as events:
                async for _ in events:
                    pass

        async def leave(number: int) -> None:
            task = asyncio.create_task(ask(number))
            for _ in range(choose.randrange(0, 60)):
                await asyncio.sleep(0)
            await asyncio.sleep(choose.choice([0, 0, 0.002, 0.01]))
            task.cancel()
            await asyncio.wait([task])

        await asyncio.gather(*(leave(number) for number in range(120)))
        await made.engine._assembly.parts.detached.drain()  # pyright: ignore[reportPrivateUsage]
        await until(lambda: all(entry.outcome != "open" for entry in made.sent()))
        rows = await made.rows()
        statuses = {row.status for row in rows}
        assert AttemptStatus.UNKNOWN in statuses
        check_books(rows, made.sent())
        guard.check()


async def test_a_lease_is_renewed_while_the_call_runs(tmp_path: Path) -> None:
    async with rig(database=SqliteDatabase(tmp_path / "log.db"), lease_s=0.3) as made:
        made.reply(latency_ms=900)
        asking = asyncio.create_task(made.engine.complete(ASK))
        await until(made.sent)
        while not asking.done():
            await made.log.expire()
            assert (await made.row()).status is not AttemptStatus.UNKNOWN
            await asyncio.sleep(0.02)
        assert (await made.row()).status is AttemptStatus.SETTLED


class SlowWatchman(Watchman):
    """Asks a person, who takes `pause_s` on the clock."""

    clock: ManualClock
    pause_s = 200.0

    async def begin(self, attempt: Attempt, request: RequestSpec | EmbeddingSpec) -> Lease:
        self.clock.advance(self.pause_s)
        return await super().begin(attempt, request)


async def test_a_call_that_waited_for_a_person_is_reserved_when_it_is_made() -> None:
    guard, clock = SlowWatchman(), ManualClock()
    guard.clock = clock
    async with rig() as made, MemoryDatabase() as database, hub_for(made.sim) as hub:
        log = CallLog(database, clock=clock)
        begun = log.now()
        async with ExecutionEngine(router=HubRouter(hub), log=log, guard=guard) as engine:
            await engine.complete(ASK)
        [row] = (await log.attempts("default")).attempts
        assert row.attempt.reserved_at == begun + guard.pause_s
        assert row.attempt.lease_until == begun + guard.pause_s + LEASE_S


class GatedLog(CallLog):
    """Writes no ending before it is let."""

    gate: asyncio.Event
    waiting = 0

    async def end(self, attempt: Attempt, ending: Ending) -> LoggedAttempt:
        self.waiting += 1
        await self.gate.wait()
        return await super().end(attempt, ending)


async def test_no_cancellation_reaches_the_writing_of_an_end() -> None:
    guard = Watchman()
    async with rig(guard=guard) as made, MemoryDatabase() as database, hub_for(made.sim) as hub:
        log = GatedLog(database, clock=SystemClock())
        log.gate = asyncio.Event()
        async with ExecutionEngine(router=HubRouter(hub), log=log, guard=guard) as engine:
            asking = asyncio.create_task(engine.complete(ASK))
            await until(lambda: log.waiting)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert guard.ended == []
            log.gate.set()
        # Closing the engine waited for it.
        [row] = (await log.attempts("default")).attempts
        assert row.status is AttemptStatus.SETTLED
        guard.check()


async def test_a_row_whose_process_died_becomes_unknown_by_the_next_ones_hand() -> None:
    async with MemoryDatabase() as database:
        log = CallLog(database, clock=SystemClock())
        await log.prepare()
        async with rig(database=database, lease_s=0.15) as made:
            await made.engine.complete(ASK)
            [row] = await made.rows()
            await log.reserve(row.attempt.model_copy(update={"attempt_id": "att-orphan"}))

            async def orphan() -> AttemptStatus:
                return next(r.status for r in await made.rows() if r.attempt.attempt_id == "att-orphan")

            async with asyncio.timeout(20):
                while await orphan() is AttemptStatus.RESERVED:
                    await made.engine.complete(ASK)
            assert await orphan() is AttemptStatus.UNKNOWN


async def test_an_engine_of_its_own_needs_only_a_provider() -> None:
    async with (
        SimServer() as sim,
        OpenAIProvider("gpt-4", api_base=sim.openai_base, env_key=None) as provider,
        ExecutionEngine(provider) as engine,
    ):
        await engine.warm_up()
        assert "[sim:gpt-4]" in (await engine.complete(RequestSpec.of("hi"))).content
        with pytest.raises(UnknownRoleError):
            await engine.complete(ASK)
    with pytest.raises(ValueError, match="provider"):
        ExecutionEngine()
