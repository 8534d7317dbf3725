"""Two tenants that use the same ids on purpose: nothing of one may ever reach the other (S8).

`make test` tries 5,000 random operations; AGENTFLOW_TENANT_OPERATIONS sets another number, 100,000 in the long run.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable
from random import Random
from typing import Any

import agent_runtime
from agent_runtime import (
    ActionConflictError,
    ActionExpiredError,
    ActionManager,
    ActionNotFoundError,
    ActionSpec,
    InMemoryEventBus,
    JobManager,
    JobNotFoundError,
    JobSpec,
    JobStateError,
    RuntimeEvent,
)
from agent_runtime.actions.sql_store import SqlActionStore
from agent_runtime.jobs.sql_store import SqlJobStore
from runtime_core.clock import ManualClock
from runtime_core.ids import SequentialIds
from runtime_core.stores import OpFactory, Sql
from runtime_core.stores.memory import MemoryDatabase

OPERATIONS = int(os.environ.get("AGENTFLOW_TENANT_OPERATIONS", "5000"))
REFUSALS = (JobStateError, JobNotFoundError, ActionConflictError, ActionExpiredError, ActionNotFoundError)


class Watched(MemoryDatabase):
    """Keeps every statement that a scope's operation ran."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def _watch(self, op_factory: OpFactory[Any]) -> OpFactory[Any]:
        def watched() -> Any:
            operation = op_factory()
            rows = None
            try:
                while True:
                    statement: Sql = operation.send(rows) if rows is not None else next(operation)
                    self.seen.add(statement.text)
                    rows = yield statement
            except StopIteration as done:
                return done.value

        return watched

    async def run(self, op_factory: OpFactory[Any]) -> Any:
        return await super().run(self._watch(op_factory))

    async def read(self, op_factory: OpFactory[Any]) -> Any:
        return await super().read(self._watch(op_factory))


class Tenant:
    """Everything that it writes carries its name; everything that it reads must."""

    def __init__(self, name: str, rng: Random, jobs: JobManager, actions: ActionManager) -> None:
        self.name = name
        self.rng = rng
        # The same ids for both: whatever tells them apart is the scope.
        self.jobs = jobs.for_scope(name)
        self.jobs._ids = SequentialIds()
        self.actions = actions.for_scope(name)
        self.actions._ids = SequentialIds()
        self.tokens: list[str] = []
        self.job_ids: list[str] = ["job-0"]
        self.action_ids: list[str] = ["action-0"]

    def check(self, record: Any) -> None:
        text = record.model_dump_json()
        assert record.scope_id == self.name
        assert set(re.findall(r"of-tenant-\d", text)) <= {f"of-{self.name}"}, text

    async def act(self, other: Tenant) -> None:
        rng, mark = self.rng, f"of-{self.name}"
        job_id, action_id = rng.choice(self.job_ids), rng.choice(self.action_ids)
        match rng.randrange(13):
            case 0:
                key = rng.choice([None, "key-1", "key-2", f"key-{rng.randrange(500)}"])
                job = await self.jobs.create(JobSpec(idempotency_key=key, metadata={"who": mark}, tags=(mark,)))
                self.job_ids.append(job.job_id)
                self.check(job)
            case 1:
                self.check(await self.jobs.start(job_id))
            case 2:
                self.check(await self.jobs.complete(job_id, result_ref=mark))
            case 3:
                self.check(await self.jobs.fail(job_id, mark))
            case 4:
                self.check(await self.jobs.cancel(job_id, reason=mark))
            case 5:
                for job in (await self.jobs.list(limit=5)).jobs:
                    self.check(job)
            case 6:
                self.check(await self.jobs.get(job_id))
            case 7 | 8:
                spec = ActionSpec(
                    job_id=job_id if rng.random() < 0.3 else None,
                    type="confirm",
                    payload={"who": mark},
                    timeout_seconds=rng.choice([None, 5]),
                )
                action = await self.actions.require_action(spec)
                self.action_ids.append(action.action_id)
                self.tokens.append(action.resume_token or "")
                self.check(action)
            case 9:
                token = rng.choice([*self.tokens[-3:], *other.tokens[-3:], "nonsense"])
                self.check(await self.actions.resolve(token, resolution={"who": mark}))
            case 10:
                self.check(await self.actions.resolve(action_id=action_id, resolution={"who": mark}))
            case 11:
                self.check(await self.actions.get(action_id))
            case _:
                for action in await self.actions.list(limit=5):
                    self.check(action)


async def test_no_operation_of_one_tenant_shows_or_changes_anything_of_the_other() -> None:
    rng, clock, bus = Random(8), ManualClock(), InMemoryEventBus()
    async with Watched() as database:
        jobs = JobManager(SqlJobStore(database), clock=clock, event_bus=bus)
        actions = ActionManager(SqlActionStore(database), job_manager=jobs, clock=clock, event_bus=bus)
        await jobs.store.get("nobody", "job-0")
        await actions.store.get("nobody", "action-0")
        database.seen.clear()
        tenants = [Tenant(name, rng, jobs, actions) for name in ("tenant-1", "tenant-2")]
        heard: dict[str, set[str]] = {}
        for tenant in tenants:
            await bus.subscribe(_into(heard.setdefault(tenant.name, set())), scope_id=tenant.name)
        worked = 0
        for _ in range(OPERATIONS):
            mine, theirs = rng.sample(tenants, 2)
            clock.advance(rng.random() / 10)
            try:
                await mine.act(theirs)
                worked += 1
            except REFUSALS:
                continue
        await bus.flush()
    assert worked > OPERATIONS / 3
    assert heard == {"tenant-1": {"tenant-1"}, "tenant-2": {"tenant-2"}}
    assert len(database.seen) > 10
    for text in database.seen:
        assert "scope_id" in text.partition(" WHERE ")[2] or text.startswith("INSERT INTO runtime_"), text
        assert "tenant" not in text and "'of-" not in text, "no value ever enters the text of a statement"


def _into(scopes: set[str]) -> Callable[[RuntimeEvent], None]:
    return lambda event: scopes.add(event.scope_id)


def test_every_method_of_a_store_that_is_for_one_tenant_takes_a_scope() -> None:
    for_operators = {"overdue", "lapsed", "due", "untold", "prepare", "close"}
    for store in (agent_runtime.JobStore, agent_runtime.ActionStore):
        for name, method in inspect.getmembers(store, inspect.isfunction):
            if name.startswith("_") or name in for_operators:
                continue
            first = list(inspect.signature(method).parameters)[1]
            assert first in ("scope_id", "job", "action"), (store, name)
