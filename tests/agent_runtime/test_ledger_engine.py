"""An engine with a ledger: what is counted for a call is what the model saw, and no budget is overrun."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from agent_runtime import Budget, BudgetExceededError, EngineLedger, EventFilter, GuardChain, Ledger, LedgerEvent
from agent_runtime.ledger.records import EventState
from agent_runtime.ledger.worst_case import DEFAULT_MAX_TOKENS
from agent_runtime.ledger.writers import SqlLedgerWriter
from llm_client import AdmitAll, CallStoreError, EmbeddingSpec, ExecutionEngine, HubRouter, RequestContext, RequestSpec
from llmhub_runtime.sim import SimServer
from runtime_core.errors import StoreUnavailableError
from runtime_core.stores.memory import MemoryDatabase
from support.call_log import attempt_of
from support.engine import QUICK, Rig, check_books, hub_for
from support.ledger_process import OneModel
from support.ledgers import held
from support.waiting import until

SCOPE = "default"
ASK = RequestSpec.of("Hello there", role="chat", max_tokens=20)
HANGS = {"fault": {"kind": "hang", "after_chunks": 2}}


@dataclass
class Desk(Rig):
    ledger: Ledger
    database: MemoryDatabase

    async def entries(self) -> list[LedgerEvent]:
        return (await self.ledger.list_events(SCOPE, EventFilter(type="model"), limit=10_000)).events

    async def entry(self) -> LedgerEvent:
        [event] = await self.entries()
        return event


@asynccontextmanager
async def desk(*, guard: Any = None, **options: Any) -> AsyncIterator[Desk]:
    """At the end nothing is reserved, and the ledger says what the call log and the model's own log say."""
    sim = SimServer()
    await sim.start()
    try:
        async with MemoryDatabase() as database, hub_for(sim) as hub:
            router = HubRouter(hub)
            accounts = EngineLedger(database, router=router)
            ledger = Ledger(SqlLedgerWriter(database))
            whole = accounts.guard if guard is None else GuardChain(guard, accounts.guard)
            async with ExecutionEngine(router=router, guard=whole, log=accounts.log, retry=QUICK, **options) as engine:
                yield (all_of := Desk(engine, sim, accounts.log, [], ledger, database))
                await engine.aclose()
                await check(all_of)
    finally:
        await sim.stop()


async def check(desk: Desk) -> None:
    rows = await desk.rows()
    check_books(rows, desk.sent())
    assert await held(desk.database, SCOPE) == (0, 0, 0)
    events = {event.event_id: event for event in await desk.entries()}
    assert events.keys() == {row.attempt.attempt_id for row in rows}
    for row in rows:
        event, ending = events[row.attempt.attempt_id], row.ending
        assert ending is not None
        assert event.state == ending.status.value
        if event.state is EventState.SETTLED:
            assert ending.usage is not None
            assert (event.input_tokens, event.output_tokens) == (ending.usage.input, ending.usage.output)
            assert event.cost_micro == (ending.cost_micro or 0)
            assert event.reserved_tokens >= event.total_tokens or event.excess_tokens


async def test_as_many_calls_reach_the_model_as_the_budget_fits() -> None:
    async with desk() as d:
        await d.ledger.set_budget(Budget(max_requests_daily=10))
        outcomes = await asyncio.gather(*(d.engine.complete(ASK) for _ in range(40)), return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, BudgetExceededError)]
        assert len(refused) == 30
        assert {(error.limit, error.status) for error in refused} == {("max_requests_daily", 429)}
        assert len(d.sent()) == 10
        assert len(await d.rows()) == 10


async def test_a_call_is_reserved_at_its_worst_case_and_settled_at_what_it_took() -> None:
    async with desk() as d:
        result = await d.engine.complete(ASK, context=RequestContext(user_id="ann", run_id="run-1"))
        event = await d.entry()
        assert (event.principal_id, event.run_id, event.role) == ("ann", "run-1", "chat")
        assert event.reserved_tokens >= len("Hello there") + 20
        assert event.reserved_cost_micro >= 20 * 10
        assert (event.total_tokens, event.cost_micro) == (result.usage.input + result.usage.output, result.cost_micro)
        assert (event.requests, event.turns) == (1, 1)


async def test_an_answer_that_nobody_bounded_is_bounded_under_a_budget_only() -> None:
    unbounded = RequestSpec.of("Hello there", role="chat")
    async with desk() as d:
        await d.engine.complete(unbounded)
        await d.ledger.set_budget(Budget(max_requests_total=100))
        await d.engine.complete(unbounded)
        await d.ledger.set_budget(Budget(max_tokens_total=100_000))
        await d.engine.complete(unbounded)
        await d.ledger.set_budget(Budget(max_tokens_per_request=500))
        await d.engine.complete(unbounded)
        await d.ledger.remove_budget(Budget())
        await d.engine.complete(unbounded)
        assert [row.attempt.max_output_tokens is None for row in await d.rows()] == [True, True, False, False, True]
        sizes = [row.attempt.max_output_tokens or 0 for row in (await d.rows())[2:]]
        assert sizes[0] == DEFAULT_MAX_TOKENS
        assert 300 < sizes[1] < 500


async def test_a_model_that_ignores_max_tokens_overshoots_by_one_call_and_blocks_the_next() -> None:
    async with desk() as d:
        await d.ledger.set_budget(Budget(max_tokens_total=1000))
        d.reply(usage={"prompt_tokens": 10, "completion_tokens": 3000})
        await d.engine.complete(ASK)
        event = await d.entry()
        assert event.excess_tokens == 3010 - event.reserved_tokens > 0
        with pytest.raises(BudgetExceededError):
            await d.engine.complete(ASK)
        assert len(d.sent()) == 1


async def test_a_budget_in_money_over_a_role_without_a_price_sends_nothing() -> None:
    async with MemoryDatabase() as database:
        accounts = EngineLedger(database, provider=OneModel())  # type: ignore[arg-type]
        await accounts.log.prepare()
        await Ledger(SqlLedgerWriter(database)).set_budget(Budget(scope_id="tenant-1", max_cost_daily=Decimal(100)))
        attempt = attempt_of(accounts.log, max_output_tokens=5)
        lease = await accounts.guard.begin(attempt, ASK)
        with pytest.raises(BudgetExceededError) as refused:
            await accounts.log.reserve(attempt)
        assert (refused.value.reason, refused.value.status) == ("no_price", 402)
        assert (await accounts.log.attempts("tenant-1")).attempts == []
        assert lease.admission.max_tokens is None


async def test_retries_streams_and_embeddings_are_counted() -> None:
    async with desk() as d:
        d.script({"match": {"times": 2}, "reply": {"fault": {"kind": "error", "status": 500}}})
        await d.engine.complete(ASK)
        async with aclosing(d.engine.stream(ASK)) as events:
            async for _ in events:
                pass
        await d.engine.embed(EmbeddingSpec(inputs=("one", "two"), role="embed"))
        states = [event.state for event in await d.entries()]
        assert states == [EventState.RELEASED] * 2 + [EventState.SETTLED] * 3
        usage = await d.ledger.usage(SCOPE)
        assert (usage.requests, usage.turns) == (3, 2)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_caller_who_leaves_is_charged_the_reserved_maximum(streamed: bool) -> None:
    async with desk() as d:
        await d.ledger.set_budget(Budget(max_tokens_total=1000))
        d.reply(**HANGS)

        async def call() -> None:
            if not streamed:
                await d.engine.complete(ASK)
                return
            async with aclosing(d.engine.stream(ASK)) as events:
                async for _ in events:
                    pass

        caller = asyncio.create_task(call())
        await until(lambda: bool(d.sent()))
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller

        async def ended() -> EventState:
            return (await d.entry()).state

        while await ended() is EventState.RESERVED:
            await asyncio.sleep(0.001)
        event = await d.entry()
        assert (event.state, event.estimated) == (EventState.UNKNOWN, True)
        assert event.total_tokens == event.reserved_tokens


async def test_duplicates_under_one_key_are_counted_once() -> None:
    async with desk() as d:
        await d.ledger.set_budget(Budget(max_requests_total=1))
        answers = await asyncio.gather(*(d.engine.complete(ASK, idempotency_key="k") for _ in range(5)))
        assert len({answer.content for answer in answers}) == 1
        assert (await d.entry()).state is EventState.SETTLED
        with pytest.raises(BudgetExceededError):
            await d.engine.complete(ASK)


async def test_it_stands_in_a_chain_of_guards() -> None:
    async with desk(guard=AdmitAll()) as d:
        await d.ledger.set_budget(Budget(max_requests_total=1))
        await d.engine.complete(ASK)
        with pytest.raises(BudgetExceededError):
            await d.engine.complete(ASK)


async def test_a_ledger_that_cannot_be_read_or_written_stops_a_call_before_it_is_sent() -> None:
    async with desk() as d:
        d.database.read = d.database.run = _gone  # type: ignore[method-assign]
        for ask in (ASK, RequestSpec.of("Hello there", role="chat")):
            with pytest.raises(CallStoreError, match="nothing was sent"):
                await d.engine.complete(ask)
        assert d.sent() == []
        del d.database.read, d.database.run


async def _gone(_: Any) -> Any:
    raise StoreUnavailableError("The disk is full.")
