"""What such a runtime usually gets wrong, a test for each (CONTRACTS.md, agent_runtime, list of defects).

Everything is real here: HTTP to a simulated model, the engine and its call log, jobs in SQLite.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import (
    ExecutionCancelledError,
    ExecutionFailedError,
    ExecutionGraph,
    ExecutionHandle,
    ExecutionRequest,
    ExecutionTimedOutError,
    GraphEdge,
    GraphExecutor,
    GraphNode,
    JobStatus,
    LocalSignalChannel,
    ModelPolicy,
    OperatorContext,
    OperatorResult,
    OrchestrationConfig,
    PolicyDenied,
    RuntimeEventType,
    RuntimeKernel,
    SqliteJobStore,
)
from llm_client import Agent
from llm_client.retry import NO_RETRY
from runtime_core.call_log.records import AttemptStatus
from support.engine import Rig, check_books, rig
from support.waiting import until

HANGS = {"fault": {"kind": "hang"}}


@dataclass
class House:
    """A kernel over a real engine, with a store of jobs and signals that others may share."""

    rig: Rig
    store: SqliteJobStore
    signals: LocalSignalChannel
    kernel: RuntimeKernel

    def another(self, **options: Any) -> RuntimeKernel:
        agent = Agent(engine=self.rig.engine, role="chat")
        shared = {"job_store": self.store, "signal_channel": self.signals}
        return RuntimeKernel(engine=self.rig.engine, agent=agent, **shared, **options)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with rig(retry=NO_RETRY) as real, SqliteJobStore(tmp_path / "jobs.sqlite") as store:
        agent, signals = Agent(engine=real.engine, role="chat"), LocalSignalChannel()
        async with RuntimeKernel(engine=real.engine, agent=agent, job_store=store, signal_channel=signals) as kernel:
            yield House(real, store, signals, kernel)


async def types_of(handle: ExecutionHandle) -> list[RuntimeEventType]:
    async with asyncio.timeout(60):  # the first call of all imports any-llm
        return [event.type async for event in handle.events()]


async def test_events_then_result_does_not_hang_and_misses_no_first_event(house: House):
    handle = await house.kernel.execute(ExecutionRequest(prompt="Hello"))
    seen = await types_of(handle)
    assert (seen[0], seen[-1]) == (RuntimeEventType.JOB_CREATED, RuntimeEventType.JOB_COMPLETED)
    assert (await handle.result(timeout_s=60)).content
    assert await types_of(handle) == seen


async def test_result_then_events_does_not_hang_either(house: House):
    handle = await house.kernel.execute(ExecutionRequest(prompt="Hello"))
    await handle.result(timeout_s=60)
    assert RuntimeEventType.JOB_CREATED in await types_of(handle)


async def test_a_denial_surfaces_as_a_denial_and_not_as_a_value_error(house: House):
    async with house.another(policies=[ModelPolicy(model_patterns=("m",), deny=True, reason="not here")]) as kernel:
        handle = await kernel.execute(ExecutionRequest(prompt="Hello"))
        with pytest.raises(PolicyDenied, match="not here") as denied:
            await handle.result()
        assert not isinstance(denied.value, ValueError)
        assert (await handle.job()).status is JobStatus.FAILED
    assert house.rig.sent() == []


async def test_an_idempotent_resubmit_runs_once_in_one_process_and_in_another(house: House):
    request = ExecutionRequest(prompt="Hello", idempotency_key="k")
    handles = await asyncio.gather(*(house.kernel.execute(request) for _ in range(20)))
    async with house.another() as other:
        handles.append(await other.execute(request))
        results = await asyncio.gather(*(handle.result() for handle in handles))
    assert all(result == results[0] for result in results)
    assert [handle.attached for handle in handles].count(False) == 1
    assert len(house.rig.sent()) == 1


async def test_cancel_ends_the_work_and_not_only_the_record(house: House):
    house.rig.reply(**HANGS)
    handle = await house.kernel.execute(ExecutionRequest(prompt="Hello"))
    await until(house.rig.sent)
    await handle.cancel()
    with pytest.raises(ExecutionCancelledError):
        await handle.result()
    await house.rig.engine.aclose()
    assert (await house.rig.row()).status is not AttemptStatus.RESERVED


async def test_a_cancel_from_another_kernel_ends_the_work_too(house: House):
    house.rig.reply(**HANGS)
    handle = await house.kernel.execute(ExecutionRequest(prompt="Hello"))
    await until(house.rig.sent)
    async with house.another() as other:
        await other.cancel(handle.job_id)
    with pytest.raises(ExecutionCancelledError):
        await handle.result(timeout_s=60)
    assert (await types_of(handle))[-1] is RuntimeEventType.JOB_CANCELLED


async def test_a_deadline_is_enforced(house: House):
    house.rig.reply(**HANGS)
    handle = await house.kernel.execute(ExecutionRequest(prompt="Hello", timeout_seconds=0.2))
    with pytest.raises(ExecutionTimedOutError):
        await handle.result(timeout_s=60)
    assert (await handle.job()).status is JobStatus.TIMED_OUT


async def test_an_agents_error_is_no_success(house: House):
    house.rig.reply(fault={"kind": "error", "status": 500})
    handle = await house.kernel.execute(ExecutionRequest(prompt="Hello"))
    with pytest.raises(ExecutionFailedError):
        await handle.result()
    job = await handle.job()
    assert (job.status, job.error and job.error.code) == (JobStatus.FAILED, "provider_unavailable")
    assert RuntimeEventType.JOB_COMPLETED not in await types_of(handle)


async def test_no_node_runs_after_a_failed_parent():
    ran: list[str] = []

    async def runs(given: dict[str, Any], context: OperatorContext) -> OperatorResult:
        ran.append(context.path[-1])
        return OperatorResult.failed("no") if context.path[-1] == "fails" else OperatorResult(content="yes")

    graph = ExecutionGraph()
    for name in ("first", "fails", "child", "grandchild", "beside"):
        graph.add_node(GraphNode(name, runs))
    for edge in (("first", "fails"), ("fails", "child"), ("child", "grandchild"), ("first", "beside")):
        graph.add_edge(GraphEdge(*edge))
    results = await GraphExecutor(graph).execute({})
    assert sorted(ran) == ["beside", "fails", "first"]
    assert {results[name].code for name in ("child", "grandchild")} == {"skipped"}


async def test_cancelling_a_parent_with_fifty_children_settles_every_attempt_and_leaves_no_orphan(house: House):
    """RELIABILITY.md, row 35."""
    house.rig.reply(**HANGS)
    children: list[ExecutionHandle] = []
    config = OrchestrationConfig(max_child_jobs=50, max_parallel=50)

    async def parent(given: dict[str, Any], context: OperatorContext) -> str:
        for number in range(50):
            request = ExecutionRequest(prompt=f"Child {number}", parent_job_id=context.job_id)
            children.append(await kernel.execute(request))
        await asyncio.gather(*(child.result() for child in children))
        return "never"

    async with house.another(operators=[parent], config=config) as kernel:
        handle = await kernel.execute(ExecutionRequest(operator_id="parent"))
        await until(lambda: len(house.rig.sent()) == 50, within_s=30)
        began = time.monotonic()
        await handle.cancel(reason="the client left")
        ended = await asyncio.gather(handle.ended(), *(child.ended() for child in children))
        assert time.monotonic() - began < 2
        assert {job.status for job in ended} == {JobStatus.CANCELLED}
    await house.rig.engine.aclose()
    rows = await house.rig.rows()
    assert len(rows) == 50
    check_books(rows, house.rig.sent())
    house.rig.reply(answer="nobody should hear this")
    await asyncio.sleep(0.2)
    assert len(house.rig.sent()) == 50
