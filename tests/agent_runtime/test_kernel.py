"""The kernel: every request is a job with events, a budget, a policy, a deadline and an end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from agent_runtime import (
    ActionSpec,
    BudgetExceededError,
    BudgetSpec,
    ChainOperator,
    ExecutionCancelledError,
    ExecutionContext,
    ExecutionError,
    ExecutionFailedError,
    ExecutionHandle,
    ExecutionRequest,
    ExecutionTimedOutError,
    InMemoryJobStore,
    JobConflictError,
    JobSpec,
    JobStatus,
    ModelPolicy,
    OperatorContext,
    OperatorResult,
    OrchestrationConfig,
    OrchestrationError,
    ParallelOperator,
    Plugin,
    PluginManifest,
    PolicyDenied,
    PolicyDocument,
    PolicyRef,
    RuntimeEventType,
    RuntimeKernel,
    SqliteJobStore,
    ToolPolicy,
)
from agent_runtime.jobs.sql_store import SqlJobStore
from llm_client import Agent, CallUnavailable
from llm_client.tools import tool
from runtime_core.clock import ManualClock, SystemClock
from runtime_core.errors import StoreUnavailableError
from runtime_core.stores.faults import FaultyDatabase
from runtime_core.stores.memory import MemoryDatabase
from support.scripted_engine import ScriptedEngine, asks_for
from support.waiting import until

Given = dict[str, Any]


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
async def kernel(engine: ScriptedEngine) -> AsyncIterator[RuntimeKernel]:
    async with RuntimeKernel.create(engine=engine, agent=Agent(engine=engine)) as kernel:
        yield kernel
    assert len(asyncio.all_tasks()) == 1, "a run was left behind"


async def types_of(handle: ExecutionHandle) -> list[str]:
    return [event.type.value async for event in handle.events()]


WELL = [
    "job.created",
    "job.started",
    "run.started",
    "model.started",
    "model.completed",
    "run.completed",
    "job.completed",
]


async def test_events_and_result_work_in_any_order_and_any_number_of_times(kernel: RuntimeKernel):
    handle = await kernel.execute(ExecutionRequest(prompt="Hello"))
    assert await types_of(handle) == WELL
    assert (await handle.result()).content == "<Hello>"
    assert (await handle.result()).content == "<Hello>"
    assert await types_of(handle) == WELL
    other = await kernel.execute(ExecutionRequest(prompt="Again"))
    assert (await other.result()).content == "<Again>"
    both = await asyncio.gather(types_of(other), other.result(), types_of(other))
    assert (both[0], both[2]) == (WELL, WELL)


async def test_a_result_counts_what_it_took(kernel: RuntimeKernel):
    result = await (await kernel.execute(ExecutionRequest(prompt="Hello"))).result()
    assert (result.model_calls, result.input_tokens, result.output_tokens, result.cost_micro) == (1, 10, 5, 100)


async def test_a_run_has_the_identity_of_its_request(kernel: RuntimeKernel, engine: ScriptedEngine):
    request = ExecutionRequest(prompt="x", scope_id="tenant-1", principal_id="ada", session_id="s", tags=("t",))
    handle = await kernel.execute(request)
    await handle.result()
    [(_, asked)] = engine.asked
    assert (asked.tenant_id, asked.user_id, asked.session_id, asked.job_id) == ("tenant-1", "ada", "s", handle.job_id)
    job = await handle.job()
    assert (job.scope_id, job.principal_id, job.tags, job.run_id) == ("tenant-1", "ada", ("t",), asked.run_id)
    with pytest.raises(Exception, match="no job"):
        await kernel.handle(handle.job_id, scope_id="tenant-2").job()


async def test_a_stream_tells_the_text_as_it_comes(kernel: RuntimeKernel):
    handle = await kernel.execute(ExecutionRequest(prompt="Hello", stream=True))
    assert (await handle.result()).content == "<Hello>"
    told = [event.data["text"] async for event in handle.events() if event.type is RuntimeEventType.MODEL_DELTA]
    assert told == list("<Hello>")
    assert [kind for kind in await types_of(handle) if kind != "model.delta"] == WELL


async def test_the_error_of_an_agent_ends_its_run_as_failed(kernel: RuntimeKernel, engine: ScriptedEngine):
    for stream in (False, True):
        engine.answer = lambda text: CallUnavailable("the model is down")
        handle = await kernel.execute(ExecutionRequest(prompt="x", stream=stream))
        with pytest.raises(ExecutionFailedError, match="the model is down") as failed:
            await handle.result()
        assert failed.value.failure == "provider_unavailable"
        assert (await handle.job()).status is JobStatus.FAILED
        assert (await types_of(handle))[-3:] == ["model.failed", "run.failed", "job.failed"]


async def test_an_operator_id_says_who_does_it(kernel: RuntimeKernel, engine: ScriptedEngine):
    async def double(given: Given, context: OperatorContext) -> OperatorResult:
        return OperatorResult(content=given["n"] * 2, data={"text": given["text"], "odd": object})

    async def breaks(given: Given, context: OperatorContext) -> OperatorResult:
        return OperatorResult.failed("no luck", code="unlucky")

    kernel.add_operator(double)
    kernel.add_operator(breaks, "broken")
    kernel.add_operator(ChainOperator([Agent(engine=engine)], name="chain"))
    result = await (await kernel.execute(ExecutionRequest(operator_id="double", prompt="t", input={"n": 2}))).result()
    assert (result.content, result.data["text"]) == (4, "t")
    assert (await (await kernel.execute(ExecutionRequest(operator_id="chain", prompt="t"))).result()).model_calls == 1
    with pytest.raises(ExecutionFailedError, match="no luck") as failed:
        await (await kernel.execute(ExecutionRequest(operator_id="broken"))).result()
    assert failed.value.failure == "unlucky"
    with pytest.raises(OrchestrationError, match="there are: double, broken, chain"):
        await kernel.execute(ExecutionRequest(operator_id="nobody"))
    with pytest.raises(OrchestrationError, match="already"):
        kernel.add_operator(double)


async def test_the_same_request_with_the_same_key_is_the_same_run(kernel: RuntimeKernel, engine: ScriptedEngine):
    engine.gate = asyncio.Event()
    request = ExecutionRequest(prompt="x", idempotency_key="k")
    first, second = await asyncio.gather(kernel.execute(request), kernel.execute(request))
    assert first.job_id == second.job_id
    assert sorted((first.attached, second.attached)) == [False, True]
    engine.gate.set()
    assert await first.result() == await second.result()
    later = await kernel.execute(request)
    assert (later.attached, await later.result(), await types_of(later)) == (True, await first.result(), WELL)
    assert len(engine.asked) == 1
    with pytest.raises(JobConflictError):
        await kernel.execute(ExecutionRequest(prompt="y", idempotency_key="k"))
    elsewhere = await kernel.execute(ExecutionRequest(prompt="y", idempotency_key="k", scope_id="tenant-2"))
    assert not elsewhere.attached
    await elsewhere.result()


async def test_cancelling_ends_the_work_and_not_only_its_record(kernel: RuntimeKernel, engine: ScriptedEngine):
    engine.gate = asyncio.Event()
    kernel.add_operator(ParallelOperator([Agent(engine=engine)] * 3, name="both"))
    handle = await kernel.execute(ExecutionRequest(operator_id="both", prompt="x"))
    await until(lambda: len(engine.asked) == 3)
    await handle.cancel(reason="enough")
    with pytest.raises(ExecutionCancelledError, match="enough"):
        await handle.result()
    assert (engine.cancelled, (await types_of(handle))[-1]) == (3, "job.cancelled")


async def test_a_run_may_be_cancelled_before_it_has_begun(kernel: RuntimeKernel, engine: ScriptedEngine):
    handle = await kernel.execute(ExecutionRequest(prompt="x"))
    await handle.cancel()
    with pytest.raises(ExecutionCancelledError):
        await handle.result()
    assert (await types_of(handle), engine.asked) == (["job.created", "job.cancelled"], [])


async def test_a_token_of_a_cancelled_run_is_cancelled_for_whoever_holds_it(kernel: RuntimeKernel):
    held: list[OperatorContext] = []

    async def hold(given: Given, context: OperatorContext) -> str:
        held.append(context)
        await asyncio.Event().wait()
        return ""

    kernel.add_operator(hold)
    handle = await kernel.execute(ExecutionRequest(operator_id="hold"))
    await until(lambda: held)
    await kernel.cancel(handle.job_id, reason="enough")
    await handle.ended()
    assert held[0].cancellation.is_cancelled


async def test_cancelling_a_parent_with_fifty_children_ends_them_all_and_calls_no_model_any_more(
    engine: ScriptedEngine,
):
    engine.gate = asyncio.Event()
    config = OrchestrationConfig(max_child_jobs=50, max_parallel=50)
    handles: list[ExecutionHandle] = []

    async def parent(given: Given, context: OperatorContext) -> str:
        for number in range(50):
            request = ExecutionRequest(prompt=f"child {number}", parent_job_id=context.job_id)
            handles.append(await kernel.execute(request))
        await asyncio.gather(*(handle.result() for handle in handles))
        return "all done"

    async with RuntimeKernel(engine=engine, operators=[parent], config=config) as kernel:
        handle = await kernel.execute(ExecutionRequest(operator_id="parent"))
        await until(lambda: len(engine.asked) == 50)
        began = time.process_time()
        async with asyncio.timeout(20):
            await kernel.cancel(handle.job_id)
            ended = await asyncio.gather(*(child.ended() for child in handles), handle.ended())
        assert time.process_time() - began < 2
        assert {job.status for job in ended} == {JobStatus.CANCELLED}
        assert engine.cancelled == 50
        engine.gate.set()
        await asyncio.sleep(0.05)
        assert len(engine.asked) == 50
        assert len(asyncio.all_tasks()) == 1


async def test_children_are_bounded_in_number_depth_and_budget(engine: ScriptedEngine):
    seen: list[BudgetSpec | None] = []
    config = OrchestrationConfig(max_child_jobs=2, max_depth=2)

    async def deep(given: Given, context: OperatorContext) -> str:
        seen.append(context.execution.budgets)
        child = await kernel.execute(ExecutionRequest(operator_id="deep", parent_job_id=context.job_id))
        return (await child.result()).job_id

    async def wide(given: Given, context: OperatorContext) -> str:
        own = BudgetSpec(max_tokens=20, max_turns=9)
        for _ in range(3):
            child = await kernel.execute(
                ExecutionRequest(prompt="x", parent_job_id=context.job_id, budgets=own, idempotency_key=given["key"])
            )
            await child.result()
            seen.append((await child.job()).budgets)
            given["key"] = None
        return ""

    async with RuntimeKernel(engine=engine, operators=[deep, wide], config=config) as kernel:
        budgets = BudgetSpec(max_tokens=50, max_turns=4)
        handle = await kernel.execute(ExecutionRequest(operator_id="deep", budgets=budgets))
        with pytest.raises(ExecutionFailedError, match="max_depth is 2"):
            await handle.result()
        assert seen == [budgets] * 3
        seen.clear()
        handle = await kernel.execute(ExecutionRequest(operator_id="wide", input={"key": None}, budgets=budgets))
        with pytest.raises(ExecutionFailedError, match="max_child_jobs is 2"):
            await handle.result()
        assert seen == [BudgetSpec(max_tokens=20, max_turns=4), BudgetSpec(max_tokens=20, max_turns=3)]


async def test_a_budget_that_is_spent_ends_the_run_with_its_own_error(kernel: RuntimeKernel, engine: ScriptedEngine):
    async def look() -> str:
        return "seen"

    engine.answer = lambda text: asks_for("look")
    kernel.add_operator(ChainOperator([Agent(engine=engine, tools=[look])], name="curious"))
    request = ExecutionRequest(operator_id="curious", prompt="x", budgets=BudgetSpec(max_turns=3))
    handle = await kernel.execute(request)
    with pytest.raises(BudgetExceededError, match="3 times"):
        await handle.result()
    assert len(engine.asked) == 3
    assert "budget.exceeded" in await types_of(handle)
    assert (await handle.job()).status is JobStatus.FAILED


async def test_a_deadline_ends_the_run_as_timed_out(engine: ScriptedEngine):
    engine.gate = asyncio.Event()
    clock = ManualClock()
    async with RuntimeKernel.create(engine=engine, clock=clock) as kernel:
        for request in (
            ExecutionRequest(prompt="x", timeout_seconds=5),
            ExecutionRequest(prompt="x", deadline=clock.now() + timedelta(seconds=10)),
            ExecutionRequest(prompt="x", budgets=BudgetSpec(max_runtime_seconds=5)),
        ):
            before = len(engine.asked)
            handle = await kernel.execute(request)
            await until(lambda before=before: len(engine.asked) > before and clock.sleepers)
            clock.advance(5)
            with pytest.raises(ExecutionTimedOutError):
                await handle.result()
            assert (await handle.job()).status is JobStatus.TIMED_OUT
            assert (await types_of(handle))[-1] == "job.timed_out"
        assert engine.cancelled == 3


async def test_what_a_policy_denies_comes_out_as_that(engine: ScriptedEngine):
    rules = [ModelPolicy(model_patterns=("big*",), deny=True, reason="too dear")]
    agent = Agent(engine=engine, role="big-model")
    async with RuntimeKernel(engine=engine, agent=agent, policies=rules) as kernel:
        for stream in (False, True):
            handle = await kernel.execute(ExecutionRequest(prompt="x", stream=stream))
            with pytest.raises(PolicyDenied, match="too dear"):
                await handle.result()
            assert (await handle.job()).status is JobStatus.FAILED
            assert "policy.denied" in await types_of(handle)
    assert engine.asked == []


NO_M = ModelPolicy(name="no m", model_patterns=("default",), deny=True)
POLICIES = (
    PolicyDocument(name="production", version="1"),
    PolicyDocument(name="production", version="2", rules=(NO_M,)),
    PolicyDocument(name="open"),
)


async def refused(kernel: RuntimeKernel, ref: PolicyRef | None) -> bool:
    handle = await kernel.execute(ExecutionRequest(prompt="x", policy_ref=ref))
    try:
        await handle.result()
    except PolicyDenied as denied:
        assert "no m" in str(denied)
        return True
    return False


async def test_a_request_selects_a_policy_by_name_and_version(engine: ScriptedEngine):
    async with RuntimeKernel(engine=engine, policy_documents=POLICIES) as kernel:
        newest, older = PolicyRef(name="production"), PolicyRef(name="production", version="1")
        assert await refused(kernel, newest)
        assert [await refused(kernel, ref) for ref in (None, older, PolicyRef(name="open"))] == [False] * 3
        handle = await kernel.execute(ExecutionRequest(prompt="x", policy_ref=newest))
        assert (await handle.ended()).policy_ref == PolicyRef(name="production", version="2"), "what it was held to"


async def test_a_policy_that_is_not_there_is_refused_before_anything_is_done(engine: ScriptedEngine):
    async with RuntimeKernel(engine=engine, policy_documents=POLICIES) as kernel:
        for ref, sentence in (
            (PolicyRef(name="prod"), "There is no policy 'prod'; there are: 'production', 'open'."),
            (
                PolicyRef(name="production", version="3"),
                "There is no policy 'production' version '3'; of that name there are: version '1', version '2'.",
            ),
        ):
            with pytest.raises(OrchestrationError) as unknown:
                await kernel.execute(ExecutionRequest(prompt="x", policy_ref=ref))
            assert str(unknown.value) == sentence
        assert (await kernel.jobs.list()).jobs == []
    with pytest.raises(ValueError, match="two policies 'open' without a version"):
        RuntimeKernel(engine=engine, policy_documents=(POLICIES[2], POLICIES[2]))


async def test_a_child_is_under_the_policy_of_its_parent_and_no_other(engine: ScriptedEngine):
    async def start(given: Given, context: OperatorContext) -> OperatorResult:
        job_id = context.execution.job_id
        child = ExecutionRequest(prompt="x", parent_job_id=job_id)
        with pytest.raises(OrchestrationError, match="under the policy 'production'"):
            await kernel.execute(child.model_copy(update={"policy_ref": PolicyRef(name="open")}))
        with pytest.raises(PolicyDenied):
            await (await kernel.execute(child)).result()
        return OperatorResult(content="done")

    async with RuntimeKernel(engine=engine, policy_documents=POLICIES) as kernel:
        kernel.add_operator(start, "start")
        request = ExecutionRequest(operator_id="start", policy_ref=PolicyRef(name="production"))
        assert (await (await kernel.execute(request)).result()).content == "done"


async def test_a_plugin_brings_policies_operators_and_tools(engine: ScriptedEngine):
    made: list[str] = []

    @tool
    async def erase() -> str:
        made.append("erased")
        return "gone"

    class Strict(Plugin):
        manifest = PluginManifest(name="strict")

        def policies(self) -> list[ToolPolicy]:
            return [ToolPolicy(tool_patterns=("erase",), deny=True, reason="never")]

        def operators(self) -> dict[str, Any]:
            return {"strict.ask": Agent(engine=engine)}

        def tools(self) -> list[Any]:
            return [erase]

    answers = iter([asks_for("erase"), "as you say"])
    engine.answer = lambda text: next(answers, f"<{text}>")
    async with RuntimeKernel(engine=engine, plugins=[Strict()]) as kernel:
        result = await (await kernel.execute(ExecutionRequest(prompt="erase it"))).result()
        assert (result.content, made) == ("as you say", [])
        assert "never" in str(engine.asked[-1][0].messages[-1]["content"])
        asked = await kernel.execute(ExecutionRequest(prompt="hi", operator_id="strict.ask"))
        assert (await asked.result()).content == "<hi>"


async def test_an_approval_holds_the_run_until_somebody_gives_it(engine: ScriptedEngine):
    rules = [ModelPolicy(model_patterns=("big*",), require_approval=True)]
    agent = Agent(engine=engine, role="big-model")
    async with RuntimeKernel(engine=engine, agent=agent, policies=rules) as kernel:
        handle = await kernel.execute(ExecutionRequest(prompt="x", scope_id="tenant-1"))
        async for event in handle.events():
            if event.type is RuntimeEventType.JOB_WAITING_ACTION:
                break
        assert (await handle.job()).status is JobStatus.WAITING_ACTION
        assert engine.asked == []
        actions = kernel.actions.for_scope("tenant-1")
        [action] = await actions.list()
        await actions.resolve(action_id=action.action_id, resolution={"approved": True})
        assert (await handle.result()).content == "<x>"


async def test_what_a_cancelled_run_asked_people_is_withdrawn(kernel: RuntimeKernel):
    async def ask(given: Given, context: OperatorContext) -> str:
        action = await kernel.actions.require_action(ActionSpec(job_id=context.job_id, type="confirm"))
        await kernel.actions.wait_for_resolution(action.action_id)
        return "asked"

    kernel.add_operator(ask)
    handle = await kernel.execute(ExecutionRequest(operator_id="ask"))
    async for event in handle.events():
        if event.type is RuntimeEventType.JOB_WAITING_ACTION:
            break
    await handle.cancel()
    await handle.ended()
    [action] = await kernel.actions.list()
    assert action.status.value == "cancelled"


async def test_runs_are_known_to_another_kernel_on_the_same_store(engine: ScriptedEngine, tmp_path: Path):
    request = ExecutionRequest(prompt="x", idempotency_key="k")
    async with SqliteJobStore(tmp_path / "jobs.sqlite") as store:
        async with RuntimeKernel(engine=engine, job_store=store) as kernel:
            first = await kernel.execute(request)
            result = await first.result()
        async with RuntimeKernel(engine=engine, job_store=store) as other:
            again = await other.execute(request)
            assert (again.attached, await again.result(), len(engine.asked)) == (True, result, 1)
            assert await types_of(again) == ["job.completed"]


async def test_a_run_whose_process_is_gone_is_done_again_by_another(engine: ScriptedEngine):
    clock, store = ManualClock(), InMemoryJobStore()
    engine.gate = asyncio.Event()
    lost = RuntimeKernel(engine=engine, job_store=store, clock=clock)
    handle = await lost.execute(ExecutionRequest(prompt="x", scope_id="tenant-1"))
    await until(lambda: engine.asked)
    async with RuntimeKernel(engine=ScriptedEngine(), job_store=store, clock=clock) as other:
        clock.step(1000)  # for the lease, as if nobody had renewed it
        [taken] = await other.recover()
        assert (await taken.result()).content == "<x>"
        assert taken.job_id == handle.job_id
    await lost.aclose()
    assert (await handle.job()).status is JobStatus.SUCCEEDED
    await store.close()


async def test_a_job_that_no_kernel_made_is_failed_and_not_left_lying(engine: ScriptedEngine):
    clock = ManualClock()
    async with RuntimeKernel(engine=engine, clock=clock) as kernel:
        job = await kernel.jobs.create(JobSpec())
        clock.step(1000)
        assert await kernel.recover() == []
        assert (await kernel.jobs.get(job.job_id)).status is JobStatus.FAILED


class Gone(InMemoryJobStore):
    """A store that stops answering when it is told to."""

    gone = False

    async def apply(self, *args: Any, **kwargs: Any) -> Any:
        if self.gone:
            raise StoreUnavailableError("the store is gone")
        return await super().apply(*args, **kwargs)


async def test_a_store_that_is_gone_is_said_and_not_waited_for(engine: ScriptedEngine):
    store = Gone()
    async with RuntimeKernel(engine=engine, job_store=store) as kernel:
        store.gone = True
        handle = await kernel.execute(ExecutionRequest(prompt="x"))
        with pytest.raises(StoreUnavailableError):
            await handle.result(timeout_s=5)
        store.gone = False
        assert (await (await kernel.execute(ExecutionRequest(prompt="x"))).result()).content == "<x>"
    await store.close()


class Ahead(SystemClock):
    """The machine's clock, some seconds ahead."""

    seconds = 0.0

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.seconds)


async def test_a_store_that_fails_now_and_then_loses_no_run_and_no_answer(engine: ScriptedEngine):
    """Half of the faults come after the write was done (RELIABILITY.md, row 11)."""
    clock, handles, answers = Ahead(), list[ExecutionHandle](), dict[str, Any]()
    async with MemoryDatabase() as database:
        faulty = FaultyDatabase(database, Random(7), rate=0.1)
        async with RuntimeKernel(engine=engine, job_store=SqlJobStore(faulty), clock=clock) as kernel:
            for number in range(40):
                with suppress(StoreUnavailableError):
                    handles.append(await kernel.execute(ExecutionRequest(prompt=str(number))))
            for handle in handles:
                with suppress(StoreUnavailableError):
                    answers[handle.job_id] = (await handle.result(timeout_s=20)).content
        assert faulty.faults > 10
        assert len(answers) > 10
        clock.seconds = 1000  # every lease has run out
        async with RuntimeKernel(engine=engine, job_store=SqlJobStore(database), clock=clock) as other:
            while taken := await other.recover():
                await asyncio.gather(*(handle.ended() for handle in taken))
            jobs = (await other.jobs.list(limit=100)).jobs
            assert {handle.job_id for handle in handles} <= {job.job_id for job in jobs}
            assert {job.status for job in jobs} == {JobStatus.SUCCEEDED}
            kept = {job.job_id: (await other.handle(job.job_id).result()).content for job in jobs}
        assert answers.items() <= kept.items()
        assert len(engine.asked) == len(jobs), "an answer that was stored is not asked for again"


async def test_waiting_for_a_result_may_be_bounded(kernel: RuntimeKernel, engine: ScriptedEngine):
    engine.gate = asyncio.Event()
    handle = await kernel.execute(ExecutionRequest(prompt="x"))
    with pytest.raises(TimeoutError):
        await handle.result(timeout_s=0.01)
    engine.gate.set()
    assert (await handle.result()).content == "<x>"


async def test_a_kernel_that_is_closed_ends_its_runs_and_takes_no_more(engine: ScriptedEngine):
    engine.gate = asyncio.Event()
    async with InMemoryJobStore() as store:
        kernel = RuntimeKernel(engine=engine, job_store=store)
        handle = await kernel.execute(ExecutionRequest(prompt="x"))
        await until(lambda: engine.asked)
        await kernel.aclose()
        with pytest.raises(ExecutionCancelledError):
            await handle.result()
        with pytest.raises(ExecutionError, match="closed"):
            await kernel.execute(ExecutionRequest(prompt="x"))
    assert engine.cancelled == 1


async def test_a_subscriber_that_is_slow_or_raises_hurts_no_run(kernel: RuntimeKernel):
    async def slow(event: object) -> None:
        await asyncio.Event().wait()

    async def raises(event: object) -> None:
        raise ValueError("not my day")

    subscriptions = [await kernel.bus.subscribe(handler) for handler in (slow, raises)]
    handle = await kernel.execute(ExecutionRequest(prompt="x"))
    assert await types_of(handle) == WELL
    for subscription in subscriptions:
        await subscription.unsubscribe()


async def test_children_of_a_run_are_traced_as_one(kernel: RuntimeKernel, engine: ScriptedEngine):
    seen: list[ExecutionContext] = []

    async def leaf(given: Given, context: OperatorContext) -> str:
        seen.append(context.execution)
        return ""

    async def root(given: Given, context: OperatorContext) -> str:
        seen.append(context.execution)
        await (await kernel.execute(ExecutionRequest(operator_id="leaf", parent_job_id=context.job_id))).result()
        return ""

    kernel.add_operator(leaf)
    kernel.add_operator(root)
    handle = await kernel.execute(ExecutionRequest(operator_id="root"))
    await handle.result()
    above, below = seen
    assert (below.trace_id, below.parent) == (above.trace_id, above.run_id)
    told = [event async for event in handle.events() if event.type is RuntimeEventType.RUN_STARTED]
    assert [event.trace_id for event in told] == [above.trace_id]
