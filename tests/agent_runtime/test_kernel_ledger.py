"""A kernel with a ledger: the budgets of jobs hold exactly, for everything in them and for the jobs below."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from agent_runtime import (
    AgentOperator,
    Budget,
    BudgetExceededError,
    BudgetSpec,
    ChainOperator,
    ExecutionRequest,
    InMemoryJobStore,
    InMemoryLedgerWriter,
    Ledger,
    OperatorContext,
    ParallelOperator,
    RuntimeKernel,
)
from agent_runtime.ledger.finds import EventFilter
from llm_client import Agent, ExecutionEngine, HubRouter
from llmhub_runtime.sim import SimServer, parse_script
from runtime_core.clock import ManualClock
from support.engine import QUICK, hub_for

LOOKS = {"match": {"last_role": "user"}, "reply": {"tool_calls": [{"name": "look", "arguments": {}}] * 5}}
DONE = {"reply": {"answer": "done"}}


class Place:
    """A kernel over a simulated model."""

    def __init__(self, sim: SimServer, engine: ExecutionEngine, writer: InMemoryLedgerWriter) -> None:
        async def look() -> str:
            return "seen"

        self.sim = sim
        self.ledger = Ledger(writer)
        self.agent = Agent(engine=engine, role="chat", tools=[look], params={"max_tokens": 50})
        eight = ParallelOperator([AgentOperator(self.agent, name=f"a{n}") for n in range(8)], on_error="collect")
        self.kernel = RuntimeKernel(
            engine=engine,
            agent=self.agent,
            ledger_writer=writer,
            operators=[ChainOperator([self.agent], name="one"), eight, self.below],
        )

    async def below(self, given: dict[str, Any], context: OperatorContext) -> str:
        """Starts three jobs of its own at once."""
        asked = ExecutionRequest(prompt="x", scope_id=context.scope_id, parent_job_id=context.job_id)
        handles = [await self.kernel.execute(asked) for _ in range(3)]
        ended = await asyncio.gather(*(handle.result() for handle in handles), return_exceptions=True)
        return " ".join("refused" if isinstance(each, BaseException) else "done" for each in ended)

    async def ask(self, operator: str | None = None, **budgets: Any) -> Any:
        given = ExecutionRequest(
            prompt="hi", scope_id="acme", operator_id=operator, budgets=BudgetSpec(**budgets) if budgets else None
        )
        return await (await self.kernel.execute(given)).result()


@asynccontextmanager
async def opened(*script: dict[str, Any]) -> AsyncIterator[Place]:
    async with SimServer() as sim, InMemoryLedgerWriter() as writer:
        sim.set_script(parse_script({"rules": [*script, DONE]}))
        async with hub_for(sim) as hub, ExecutionEngine(router=HubRouter(hub), retry=QUICK) as engine:
            place = Place(sim, engine, writer)
            async with place.kernel:
                yield place
            used = await place.ledger.usage("acme")
            assert (used.open, used.unknown) == (0, 0)
            assert [budget for budget in await place.ledger.budgets("acme") if budget.run_id] == []


async def test_every_attempt_of_a_job_is_in_the_ledger_under_its_run():
    fails = {"match": {"times": 1}, "reply": {"fault": {"kind": "error", "status": 503}}}
    async with opened(fails) as place:
        done = await place.ask()
        assert done.content == "done"
        events = (await place.ledger.list_events("acme", EventFilter(type="model"))).events
        assert [event.state.value for event in events] == ["released", "settled"]
        assert len({(event.run_id, event.job_id) for event in events}) == 1


async def test_calls_at_the_same_time_never_pass_the_budget_of_their_job():
    async with opened() as place:
        await place.ask("parallel", max_turns=5, max_tokens=10_000)
        used = await place.ledger.usage("acme")
        assert used.requests == used.turns == len(place.sim.log()) == 5
        await place.ask("parallel", max_tokens=600)
        most = await place.ledger.usage("acme")
        assert 5 < most.requests < 5 + 8 and most.total_tokens - used.total_tokens <= 600


async def test_what_jobs_below_use_counts_for_the_job_above():
    async with opened() as place:
        done = await place.ask("below", max_turns=2)
        assert sorted(done.content.split()) == ["done", "done", "refused"]
        assert len(place.sim.log()) == 2


async def test_a_job_that_is_done_again_has_what_its_first_attempt_left():
    clock, kernels, used_one = ManualClock(datetime.now(UTC)), list[RuntimeKernel](), asyncio.Event()

    async def below(given: dict[str, Any], context: OperatorContext) -> str:
        kernel, done = kernels[-1], 0
        asked = ExecutionRequest(prompt="x", scope_id=context.scope_id, parent_job_id=context.job_id)
        while True:
            try:
                await (await kernel.execute(asked)).result()
            except BudgetExceededError:
                return f"{done} more"
            done += 1
            if kernel is kernels[0]:
                used_one.set()
                await asyncio.Event().wait()  # as a process that hangs, or died

    async with SimServer() as sim, InMemoryLedgerWriter() as writer, InMemoryJobStore() as store:
        sim.set_script(parse_script({"rules": [DONE]}))
        async with (
            hub_for(sim) as hub,
            ExecutionEngine(router=HubRouter(hub), retry=QUICK) as engine,
            AsyncExitStack() as stack,
        ):
            for _ in range(2):
                agent = Agent(engine=engine, role="chat")
                kernel = RuntimeKernel(
                    engine=engine, agent=agent, job_store=store, ledger_writer=writer, operators=[below], clock=clock
                )
                kernels.append(await stack.enter_async_context(kernel))
                if len(kernels) == 1:
                    request = ExecutionRequest(
                        prompt="hi", scope_id="acme", operator_id="below", budgets=BudgetSpec(max_turns=3)
                    )
                    await kernel.execute(request)
                    await asyncio.wait_for(used_one.wait(), 60)
            clock.step(1000)  # for the leases, as if nobody had renewed them
            await Ledger(writer, clock=clock).expire()
            [taken] = await kernels[1].recover()
            assert (await taken.result()).content == "2 more"


async def test_a_budget_of_the_scope_binds_jobs_too():
    async with opened() as place:
        await place.ledger.set_budget(Budget(scope_id="acme", max_requests_total=1))
        assert (await place.ask()).content == "done"
        with pytest.raises(BudgetExceededError, match="max_requests_total"):
            await place.ask()


async def test_tool_calls_of_a_job_are_exact_and_one_too_many_is_told_to_the_model():
    async with opened(LOOKS) as place:
        await place.ledger.set_budget(Budget(scope_id="acme", max_tool_calls_total=3))
        await place.ask()
        last = place.sim.log()[-1].request
        assert isinstance(last, dict)
        told = [message["content"] for message in last["messages"] if message["role"] == "tool"]
        assert told.count("seen") == 3 and sum("budget_exceeded" in text for text in told) == 2
        assert (await place.ledger.usage("acme")).tool_calls == 3
