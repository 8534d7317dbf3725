"""Tool calls in the ledger: what fits is made and counted, what does not is refused, whoever leaves early."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent_runtime import Budget, BudgetExceededError, EventFilter, Ledger, LedgerMiddleware, ToolLedger
from agent_runtime.ledger.records import EventState
from agent_runtime.ledger.writers import SqlLedgerWriter
from llm_client import Agent, CallStoreError, RequestContext
from llm_client.results import CompletionResult, ToolCall
from runtime_core.clock import ManualClock
from runtime_core.stores import Database
from runtime_core.stores.faults import FaultyDatabase
from runtime_core.stores.sql import OpFactory
from support.ledgers import BOB, SCOPE, WHO, ledger_database
from support.stores import fresh_store_url

CALLS = EventFilter(type="tool")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 1, 31, 12, tzinfo=UTC))


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    database = ledger_database(await fresh_store_url(request.param, request, tmp_path))
    yield database
    await database.close()


@pytest.fixture
def ledger(database: Database, clock: ManualClock) -> Ledger:
    return Ledger(SqlLedgerWriter(database), clock=clock)


@pytest.fixture
async def tools(database: Database, clock: ManualClock) -> AsyncIterator[ToolLedger]:
    tools = ToolLedger(SqlLedgerWriter(database), clock=clock)
    yield tools
    await tools.aclose()


async def many(tools: ToolLedger, number: int, who=WHO) -> int:
    """Calls at the same time; how many were made."""

    async def one() -> bool:
        try:
            async with tools.call(who, "look"):
                await asyncio.sleep(0)
                return True
        except BudgetExceededError:
            return False

    return sum(await asyncio.gather(*(one() for _ in range(number))))


@pytest.mark.parametrize(
    "budget",
    [
        Budget(scope_id=SCOPE, run_id="run-1", max_tool_calls_total=7),
        Budget(scope_id=SCOPE, principal_id="ann", max_tool_calls_daily=7),
        Budget(scope_id=SCOPE, max_tool_calls_per_minute=7),
    ],
    ids=["run", "principal", "scope"],
)
async def test_a_limit_of_tool_calls_is_exact_for_calls_at_the_same_time(
    tools: ToolLedger, ledger: Ledger, budget: Budget
):
    await ledger.set_budget(budget)
    assert await many(tools, 25) == 7
    assert await many(tools, 3) == 0
    used = await ledger.usage(SCOPE, CALLS)
    assert (used.tool_calls, used.open, used.unknown) == (7, 0, 0)


async def test_one_tenants_limit_is_no_other_tenants(tools: ToolLedger, ledger: Ledger):
    await ledger.set_budget(Budget(scope_id=SCOPE, principal_id="ann", max_tool_calls_total=0))
    other = WHO.model_copy(update={"scope_id": "tenant-2"})
    assert [await many(tools, 2, who) for who in (WHO, BOB, other)] == [0, 2, 2]
    assert (await ledger.usage("tenant-2", CALLS)).tool_calls == 2


async def test_time_is_reserved_as_far_as_it_may_go_and_counted_as_it_went(
    tools: ToolLedger, ledger: Ledger, clock: ManualClock
):
    await ledger.set_budget(Budget(scope_id=SCOPE, max_runtime_seconds_total=10))
    async with tools.call(WHO, "look", most_s=8):
        clock.advance(1.5)
        with pytest.raises(BudgetExceededError, match="max_runtime_seconds_total"):
            async with tools.call(BOB, "look", most_s=8):
                raise AssertionError("there is no time left for it")
    async with tools.call(BOB, "look", most_s=8):
        clock.advance(0.5)
    assert (await ledger.usage(SCOPE, CALLS)).runtime_ms == 2000
    [first, second] = (await ledger.list_events(SCOPE, CALLS)).events
    assert (first.detail, first.principal_id, first.run_id) == ("look", "ann", "run-1")
    assert first.state is second.state is EventState.SETTLED


async def test_a_call_that_fails_or_is_cancelled_has_an_end(tools: ToolLedger, ledger: Ledger):
    with pytest.raises(KeyError):
        async with tools.call(WHO, "look"):
            raise KeyError
    began = asyncio.Event()

    async def wait() -> None:
        async with tools.call(WHO, "look"):
            began.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await began.wait()
    task.cancel()
    await asyncio.wait([task])
    used = await ledger.usage(SCOPE, CALLS)
    assert (used.events, used.open, used.tool_calls) == (2, 0, 2)


class _Slow(SqlLedgerWriter):
    """Lets a test in between a commit and its news."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.committed, self.go_on = asyncio.Event(), asyncio.Event()

    async def run(self, op_factory: OpFactory):
        result = await super().run(op_factory)
        self.committed.set()
        await self.go_on.wait()
        return result


async def test_a_caller_who_leaves_while_a_call_is_reserved_leaves_nothing_behind(
    database: Database, ledger: Ledger, clock: ManualClock
):
    writer = _Slow(database)
    tools = ToolLedger(writer, clock=clock)

    async def call() -> None:
        async with tools.call(WHO, "look"):
            raise AssertionError("it was called off before")

    task = asyncio.create_task(call())
    await writer.committed.wait()
    task.cancel()
    await asyncio.wait([task])
    writer.go_on.set()
    await tools.aclose()
    [event] = (await ledger.list_events(SCOPE, CALLS)).events
    assert (event.state, event.tool_calls) == (EventState.RELEASED, 0)


async def test_where_the_ledger_cannot_be_read_no_tool_is_called(clock: ManualClock):
    from random import Random

    from runtime_core.stores import open_database

    async with FaultyDatabase(open_database("memory:"), Random(1), rate=1.0) as database:
        with pytest.raises(CallStoreError, match="so the tool was not called"):
            async with ToolLedger(SqlLedgerWriter(database)).call(WHO, "look"):
                raise AssertionError("nobody can tell whether it may be called")


class _AsksFourTimes:
    """A model that asks for four calls, then says what it heard."""

    async def complete(self, spec, *, context=None, cancellation=None) -> CompletionResult:
        heard = [message["content"] for message in spec.messages if message["role"] == "tool"]
        if heard:
            return CompletionResult(content=" ".join(heard), finish_reason="stop")
        calls = tuple(ToolCall(id=f"c{number}", name="look", arguments="{}") for number in range(4))
        return CompletionResult(content="", finish_reason="tool_calls", tool_calls=calls)


async def test_an_agents_model_is_told_which_calls_were_not_made(tools: ToolLedger, ledger: Ledger):
    await ledger.set_budget(Budget(scope_id=SCOPE, run_id="run-1", max_tool_calls_total=3))

    async def look() -> str:
        return "seen"

    agent = Agent(engine=_AsksFourTimes(), tools=[look], middleware=[LedgerMiddleware(tools)])
    done = await agent.run("go", context=RequestContext(tenant_id=SCOPE, user_id="ann", run_id="run-1"))
    assert done.content.count("seen") == 3
    assert done.content.count('"code": "budget_exceeded"') == 1
    assert "max_tool_calls_total of run 'run-1' is 3; 0 is left" in done.content
