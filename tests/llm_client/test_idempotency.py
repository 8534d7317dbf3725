"""One execution and one answer for each key, whoever asks, however often, and whoever gives up on the way.

AGENTFLOW_DUPLICATE_KEYS is the number of keys that are asked 20 times at once, 50 keys at a time.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest

from llm_client import (
    CallTimedOut,
    CallUnavailable,
    CancellationToken,
    EmbeddingSpec,
    IdempotencyConflictError,
    IdempotencyTracker,
    RequestContext,
    RequestSpec,
    StreamEnded,
    StreamFailed,
)
from llm_client.errors import CallCancelled, CallRefused
from llmhub_runtime.sim import SimServer
from runtime_core.call_log.keys import Claim, Started
from runtime_core.errors import StoreValueError
from runtime_core.stores.postgres import PostgresDatabase
from runtime_core.stores.sqlite import SqliteDatabase
from support.engine import Rig, check_books, rig
from support.postgres import PostgresServer
from support.waiting import until

ASK = RequestSpec.of("Hello there", role="chat")
KEYS, DUPLICATES = int(os.environ.get("AGENTFLOW_DUPLICATE_KEYS", "200")), 20


def asking(text: str) -> RequestSpec:
    return RequestSpec.of(text, role="chat")


async def test_concurrent_duplicates_are_one_call_and_one_answer() -> None:
    async with rig() as made:

        async def ask(number: int) -> list[str]:
            calls = (
                made.engine.complete(asking(f"number {number}"), idempotency_key=f"k{number}")
                for _ in range(DUPLICATES)
            )
            results = await asyncio.gather(*calls)
            assert len({result.attempt_id for result in results}) == 1
            assert sorted(result.cached for result in results) == [False] + [True] * (DUPLICATES - 1)
            return [result.model_dump_json(exclude={"cached"}) for result in results]

        answers: list[list[str]] = []
        for start in range(0, KEYS, 50):
            answers += await asyncio.gather(*(ask(number) for number in range(start, start + 50)))
        assert sum(map(len, answers)) == KEYS * DUPLICATES
        assert all(len(set(group)) == 1 for group in answers)
        assert len(made.sent()) == KEYS
        check_books(await made.rows(), made.sent())


async def test_a_stored_answer_outlives_the_engine_and_is_replayed_to_streams(tmp_path: Path) -> None:
    async with SimServer() as sim:
        async with rig(sim=sim, database=SqliteDatabase(tmp_path / "log.db")) as made:
            first = await made.engine.complete(ASK, idempotency_key="k")
        async with rig(sim=sim, database=SqliteDatabase(tmp_path / "log.db")) as made:
            again = await made.engine.complete(ASK, idempotency_key="k")
            *deltas, last = [event async for event in made.engine.stream(ASK, idempotency_key="k")]
            assert again == first.model_copy(update={"cached": True})
            assert isinstance(last, StreamEnded) and last.result == again
            assert "".join(event.text for event in deltas if event.kind == "text") == first.content
            assert made.events == ["idempotency.hit", "idempotency.hit"]
            assert len(made.sent()) == 1


async def test_machines_share_keys_through_postgresql(postgres_server: PostgresServer) -> None:
    url = await postgres_server.fresh_url()
    async with (
        SimServer() as sim,
        rig(sim=sim, database=PostgresDatabase(url)) as here,
        rig(sim=sim, database=PostgresDatabase(url)) as there,
    ):
        calls = (
            each.engine.complete(asking(f"number {number}"), idempotency_key=f"k{number}")
            for number in range(20)
            for each in (here, there, there, here)
        )
        results = await asyncio.gather(*calls)
        assert len(here.sent()) == 20
        assert len({result.attempt_id for result in results}) == 20
        check_books(await here.rows(), here.sent())


async def test_a_key_belongs_to_its_scope_and_its_request() -> None:
    async with rig() as made:
        await made.engine.complete(ASK, idempotency_key="k")
        with pytest.raises(IdempotencyConflictError) as refused:
            await made.engine.complete(asking("something else"), idempotency_key="k")
        assert (refused.value.key, refused.value.in_flight) == ("k", False)
        other = await made.engine.complete(ASK, idempotency_key="k", context=RequestContext(tenant_id="other"))
        assert not other.cached
        assert len(made.sent()) == 2
        with pytest.raises(StoreValueError):
            await made.engine.complete(ASK, idempotency_key="k" * 256)
        assert made.events.count("idempotency.conflict") == 1


async def test_a_scope_that_has_its_fill_of_keys_gets_no_new_one_and_nothing_is_sent() -> None:
    async with rig(max_keys=1) as made:
        first = await made.engine.complete(ASK, idempotency_key="k")
        with pytest.raises(CallRefused) as refused:
            await made.engine.complete(ASK, idempotency_key="other")
        assert (refused.value.reason, refused.value.scope_id) == ("idempotency_keys", "default")
        assert refused.value.retry_after is not None and refused.value.retry_after > 80_000
        assert (await made.engine.complete(ASK, idempotency_key="k")).content == first.content
        assert len(made.sent()) == 1


async def test_a_conflict_while_the_first_one_is_in_flight() -> None:
    async with rig(idempotency_tracker=IdempotencyTracker(conflict="error")) as made:
        made.reply(latency_ms=300)
        first = asyncio.create_task(made.engine.complete(ASK, idempotency_key="k"))
        await until(made.sent)
        with pytest.raises(IdempotencyConflictError) as refused:
            await made.engine.complete(ASK, idempotency_key="k")
        assert refused.value.in_flight
        await first
        assert (await made.engine.complete(ASK, idempotency_key="k")).cached


async def test_a_failure_is_shared_with_those_who_wait_and_not_stored() -> None:
    async with rig() as made:
        made.script({"match": {"times": 3}, "reply": {"latency_ms": 50, "fault": {"kind": "error", "status": 500}}})
        calls = (made.engine.complete(ASK, idempotency_key="k") for _ in range(5))
        failures = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(failure) for failure in failures} == {CallUnavailable}
        assert len(set(map(id, failures))) == 5
        assert len(made.sent()) == 3
        assert not (await made.engine.complete(ASK, idempotency_key="k")).cached
        assert "idempotency.fail" in made.events


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_cancelled_first_one_fails_nobody(streamed: bool) -> None:
    async with rig() as made:
        made.script({"match": {"times": 1}, "reply": {"fault": {"kind": "hang", "after_chunks": 1}}})

        async def lead() -> None:
            if not streamed:
                await made.engine.complete(ASK, idempotency_key="k")
            async with aclosing(made.engine.stream(ASK, idempotency_key="k")) as events:
                async for _ in events:
                    pass

        leader = asyncio.create_task(lead())
        await until(made.sent)
        followers = [asyncio.create_task(made.engine.complete(ASK, idempotency_key="k")) for _ in range(5)]
        await asyncio.sleep(0)
        leader.cancel()
        results = await asyncio.gather(*followers)
        assert len({result.attempt_id for result in results}) == 1
        assert [row.status.value for row in await made.rows()] == ["unknown", "settled"]
        check_books(await made.rows(), made.sent())


async def test_a_follower_waits_no_longer_than_its_own_deadline() -> None:
    async with rig() as made:
        made.reply(fault={"kind": "hang"})
        leader = asyncio.create_task(made.engine.complete(ASK, idempotency_key="k"))
        await until(made.sent)
        with pytest.raises(CallTimedOut):
            await made.engine.complete(ASK, idempotency_key="k", context=RequestContext(deadline=time.time() + 0.1))
        leader.cancel()
        await asyncio.wait([leader])


async def test_two_processes_share_a_key_and_the_second_takes_over_from_a_dead_one(tmp_path: Path) -> None:
    """Two engines on one file: what is in flight in one is followed by the other."""
    async with AsyncExitStack() as stack:
        sim = await stack.enter_async_context(SimServer())

        async def engine() -> Rig:
            tracker = IdempotencyTracker(request_timeout=1)
            database = SqliteDatabase(tmp_path / "log.db")
            return await stack.enter_async_context(rig(sim=sim, database=database, idempotency_tracker=tracker))

        one, two = await engine(), await engine()
        # Longer than the claim's lease: it is renewed while the call runs.
        one.reply(latency_ms=2000)
        results = await asyncio.gather(*(each.engine.complete(ASK, idempotency_key="k") for each in (one, two)))
        assert sorted(result.cached for result in results) == [False, True]
        assert len({result.attempt_id for result in results}) == len(one.sent()) == 1

        sim.reset()
        dead = Claim("default", "k2", (await one.rows())[0].attempt.request_hash, "a-dead-process", lease_s=0.3)
        began = time.monotonic()
        await one.log.begin(dead)
        assert not (await two.engine.complete(ASK, idempotency_key="k2")).cached
        assert time.monotonic() - began >= 0.25


async def test_whoever_lost_the_key_meanwhile_gives_the_answer_of_the_one_who_took_it(tmp_path: Path) -> None:
    async with rig(database=SqliteDatabase(tmp_path / "log.db"), idempotency_tracker=IdempotencyTracker(0.3)) as made:
        made.script(
            {"match": {"nth": 1}, "reply": {"latency_ms": 600, "answer": "late"}}, {"reply": {"answer": "first"}}
        )
        # A process that is stopped renews nothing: here its renewals are dropped.
        made.engine._assembly.parts.keeper.hold_claim = lambda claim: None  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
        late = asyncio.create_task(made.engine.complete(ASK, idempotency_key="k"))
        await until(made.sent)
        async with rig(sim=made.sim, database=SqliteDatabase(tmp_path / "log.db")) as other:
            taken = await other.engine.complete(ASK, idempotency_key="k")
        result = await late
        assert (taken.content, result.content) == ("first", "first")
        assert result.attempt_id == taken.attempt_id
        check_books(await made.rows(), made.sent())


@pytest.mark.parametrize("when", ["before the late answer", "after it"])
async def test_the_answer_of_whoever_lost_the_key_counts_when_the_one_who_took_it_gives_up(
    when: str, tmp_path: Path
) -> None:
    async with rig(database=SqliteDatabase(tmp_path / "log.db"), idempotency_tracker=IdempotencyTracker(0.3)) as made:
        made.script(
            {"match": {"nth": 1}, "reply": {"latency_ms": 600, "answer": "late"}}, {"reply": {"answer": "next"}}
        )
        made.engine._assembly.parts.keeper.hold_claim = lambda claim: None  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
        late = asyncio.create_task(made.engine.complete(ASK, idempotency_key="k"))
        await until(made.sent)
        taker = Claim("default", "k", (await made.rows())[0].attempt.request_hash, "another-process", lease_s=60)
        while not isinstance(await made.log.begin(taker), Started):
            await asyncio.sleep(0.01)
        if when == "after it":
            await until(lambda: made.sim.log()[0].outcome == "finished")
            await asyncio.sleep(0.1)
        await made.log.fail(taker)
        first, again = await late, await made.engine.complete(ASK, idempotency_key="k")
        assert (first.content, again.content, again.cached) == ("late", "late", True)
        check_books(await made.rows(), made.sent())


async def test_a_stream_and_an_embedding_under_a_key() -> None:
    async with rig() as made:
        spec = EmbeddingSpec(inputs=("a",), role="embed")
        vectors = [(await made.engine.embed(spec, idempotency_key="e")).vectors for _ in range(2)]
        assert vectors[0] == vectors[1]
        *_, last = [event async for event in made.engine.stream(ASK, idempotency_key="s")]
        assert isinstance(last, StreamEnded)
        assert (await made.engine.complete(ASK, idempotency_key="s")).content == last.result.content
        assert len(made.sent()) == 2


async def test_a_token_cancels_a_call_and_a_stream_with_an_error_of_its_own() -> None:
    async with rig() as made:
        made.reply(fault={"kind": "hang", "after_chunks": 1})
        token = CancellationToken()
        child = token.child()
        call = asyncio.create_task(made.engine.complete(ASK, cancellation=child, idempotency_key="k"))
        await until(made.sent)
        token.cancel("enough")
        with pytest.raises(CallCancelled, match="enough"):
            await call
        with pytest.raises(CallCancelled):
            await made.engine.complete(ASK, cancellation=child)
        assert len(made.sent()) == 1

        token = CancellationToken()
        events = []
        async for event in made.engine.stream(ASK, cancellation=token):
            events.append(event)
            token.cancel()
        assert isinstance(events[-1], StreamFailed) and events[-1].code == "cancelled"
        assert [row.status.value for row in await made.rows()] == ["unknown", "unknown"]
