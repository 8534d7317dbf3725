"""The samples of `agent-runtime-implementation.md`, "Core Components" and what belongs to them, as written.

Each test is named after its heading. What the contract corrects is marked so.
"""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from runtime_core.clock import ManualClock


def test_execution_context() -> None:
    from agent_runtime import BudgetSpec, ExecutionContext, PolicyRef

    ctx = ExecutionContext(
        scope_id="tenant-123",  # Multi-tenancy
        principal_id="user-456",  # Actor identity
        session_id="session-789",  # Conversation bucket
        budgets=BudgetSpec(
            max_tokens=100000,
            max_cost=10.0,
            max_turns=20,
        ),
        policy_ref=PolicyRef(name="production"),
    )

    assert ExecutionContext.from_dict(ctx.to_dict()) == ctx
    assert ctx.budgets is not None and ctx.budgets.max_cost == Decimal("10")
    assert ctx.child().budgets == ctx.budgets


def test_budget_spec() -> None:
    from agent_runtime import BudgetSpec, RunVersions

    spec = BudgetSpec(
        max_tokens=100000,  # Total tokens
        max_cost=10.0,  # Maximum cost in dollars
        max_tool_calls=100,  # Maximum tool invocations
        max_turns=20,  # Maximum conversation turns
        max_runtime_seconds=300.0,  # Maximum execution time
    )

    assert spec.within(BudgetSpec(max_turns=5)).max_turns == 5
    assert RunVersions(runtime_version="1.0.0", model_version="gpt-4-0125").prompt_version is None


async def test_jobs() -> None:
    from agent_runtime import InMemoryJobStore, JobManager, JobSpec

    store = InMemoryJobStore()
    manager = JobManager(store)

    # Create a job
    job = await manager.create(
        JobSpec(
            scope_id="tenant-123",
            principal_id="user-456",
            idempotency_key="unique-key",
        )
    )

    # Update status
    job = await manager.start(job.job_id)
    job = await manager.complete(job.job_id, result_ref="result-123")

    assert (job.status, job.scope_id, job.result_ref) == ("succeeded", "tenant-123", "result-123")
    await store.close()


async def test_actions() -> None:
    from agent_runtime import ActionManager, ActionSpec, InMemoryActionStore

    store = InMemoryActionStore()
    manager = ActionManager(store)

    # Request user action
    action = await manager.require_action(
        ActionSpec(
            job_id="job-123",
            type="confirm",
            payload={"message": "Proceed with deployment?"},
            timeout_seconds=300,
        )
    )

    # Later, resolve the action
    await manager.resolve(
        action.resume_token,
        resolution={"confirmed": True},
    )

    assert (await manager.get(action.action_id)).resolution == {"confirmed": True}
    await store.close()


async def test_policy_engine() -> None:
    from agent_runtime import ExecutionContext, ModelPolicy, PolicyDenied, PolicyEngine, ToolPolicy

    engine = PolicyEngine()

    # Add policies
    engine.add_rule(
        ToolPolicy(
            tool_patterns=["file_*"],
            allowed_scopes=["internal"],
        )
    )

    engine.add_rule(
        ModelPolicy(
            model_patterns=["gpt-4*"],
            require_approval=True,
        )
    )

    async def check(context: ExecutionContext) -> None:
        # Check policy
        result = await engine.check_tool("file_read", context)
        if not result.allowed:
            raise PolicyDenied(result.reason)

    await check(ExecutionContext(scope_id="internal"))
    with pytest.raises(PolicyDenied, match="does not allow it in this scope"):
        await check(ExecutionContext(scope_id="tenant-123"))


async def test_event_bus(capsys: pytest.CaptureFixture[str]) -> None:
    from agent_runtime import InMemoryEventBus, RuntimeEvent, RuntimeEventType

    bus = InMemoryEventBus()

    # Subscribe to events
    async def handler(event: RuntimeEvent) -> None:
        print(f"Event: {event.type}")

    subscription = await bus.subscribe(
        handler,
        event_types={RuntimeEventType.JOB_STARTED},
    )

    # Publish events
    await bus.publish(
        RuntimeEvent(
            type=RuntimeEventType.JOB_STARTED,
            job_id="job-123",
        )
    )

    await bus.publish(RuntimeEvent(type=RuntimeEventType.JOB_FAILED, job_id="job-123"))
    await bus.flush()
    await subscription.unsubscribe()
    assert capsys.readouterr().out == "Event: job.started\n"


async def test_with_human_in_the_loop() -> None:
    """Corrected by the contract: the action is read again after waiting, and the context is an argument."""
    from agent_runtime import (
        ActionManager,
        ActionSpec,
        ExecutionContext,
        InMemoryActionStore,
        InMemoryJobStore,
        JobManager,
        JobSpec,
    )

    deployed: list[str] = []

    async def do_deploy() -> None:
        deployed.append("production")

    job_manager = JobManager(InMemoryJobStore())
    action_manager = ActionManager(InMemoryActionStore(), job_manager=job_manager)

    async def deploy_changes(context: ExecutionContext) -> None:
        # Request approval
        action = await action_manager.require_action(
            ActionSpec(
                job_id=context.job_id,
                type="confirm",
                payload={"message": "Deploy to production?"},
            )
        )

        # Wait for resolution
        action = await action_manager.wait_for_resolution(action.action_id)

        # Proceed if approved
        resolution = action.resolution or {}
        if resolution.get("approved"):
            await do_deploy()

    for approved in (True, False):
        job = await job_manager.create(JobSpec())
        context = ExecutionContext(job_id=job.job_id)

        async def work(job: Any, context: ExecutionContext = context) -> None:
            await deploy_changes(context)

        running = asyncio.create_task(job_manager.run(job.job_id, work))
        action, *_ = await pending(action_manager, job_manager, job.job_id)
        await action_manager.resolve(action_id=action.action_id, resolution={"approved": approved})
        assert (await running).status == "succeeded"
    assert deployed == ["production"]


async def pending(action_manager: Any, job_manager: Any, job_id: str) -> list[Any]:
    """The open actions of a job that waits for them."""
    async with asyncio.timeout(10):
        while (await job_manager.get(job_id)).status != "waiting_action":
            await asyncio.sleep(0.001)
    return await action_manager.list()


async def test_storage_adapters() -> None:
    """The tables and columns of the document, and a scope in every key."""
    from agent_runtime import InMemoryActionStore, InMemoryJobStore
    from runtime_core.stores import Sql

    documented = {
        "runtime_jobs": "job_id scope_id principal_id session_id run_id status created_at updated_at started_at"
        " completed_at deadline progress budgets policy_ref versions metadata tags",
        "runtime_actions": "action_id job_id type status payload resolution resume_token created_at expires_at"
        " resolved_at",
    }
    for table, store in (("runtime_jobs", InMemoryJobStore()), ("runtime_actions", InMemoryActionStore())):
        await store.prepare()

        def columns(table: str = table) -> Any:
            return (yield Sql("SELECT name, pk FROM pragma_table_info(?)", (table,)))

        def indexes(table: str = table) -> Any:
            return (yield Sql("SELECT sql FROM sqlite_schema WHERE tbl_name = ? AND sql LIKE '%UNIQUE%'", (table,)))

        found = await store._database.read(columns)
        assert {name for name, _ in found} >= {*documented[table].split(), "scope_id"}
        assert dict(found)["scope_id"] == 1, "the first column of the key"
        [(unique,)] = await store._database.read(indexes)
        assert "(scope_id, " in unique
        await store.close()


async def test_job_deadlines_come_from_the_spec() -> None:
    from agent_runtime import InMemoryJobStore, JobManager, JobSpec

    clock = ManualClock()
    async with InMemoryJobStore() as store:
        manager = JobManager(store, clock=clock)
        job = await manager.create(JobSpec(timeout_seconds=300, deadline=clock.now()))
        assert job.deadline == clock.now(), "the earlier one counts"
