"""Jobs against a table: any sequence of events, two tenants with the same ids, a clock moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent_runtime import InMemoryJobStore, JobStateError
from agent_runtime.jobs.machine import (
    LEGAL,
    ActionSettled,
    Cancel,
    Fail,
    JobEvent,
    Look,
    Progress,
    Renew,
    Start,
    Succeed,
    TimeOut,
    WaitForAction,
)
from agent_runtime.jobs.records import JobFailure, JobStatus
from support.agent_stores import NOW, job_of

T = TypeVar("T")

S = JobStatus
OPEN = {S.QUEUED, S.RUNNING, S.WAITING_ACTION}
ENDS: dict[type, JobStatus] = {Succeed: S.SUCCEEDED, Fail: S.FAILED, Cancel: S.CANCELLED, TimeOut: S.TIMED_OUT}

scopes = st.sampled_from(["tenant-1", "tenant-2"])
ids = st.sampled_from(["job-1", "job-2"])
owners = st.sampled_from(["w1", "w2"])
action_ids = st.sampled_from(["a1", "a2"])


@dataclass
class Model:
    """What a reader of the specification would keep in mind."""

    deadline: float | None
    status: JobStatus = S.QUEUED
    owner: str | None = None
    lease: float = 0.0
    waits: set[str] = field(default_factory=set[str])
    ended_with: object = None
    path: list[JobStatus] = field(default_factory=lambda: [S.QUEUED])

    def go(self, status: JobStatus) -> None:
        self.status = status
        self.path.append(status)

    def expect(self, event: JobEvent, now: float) -> bool:
        """Move as the event says; False if it is not allowed."""
        if self.status in OPEN and self.deadline is not None and self.deadline <= now:
            self.end(S.TIMED_OUT)
            return True
        match event:
            case Look():
                return True
            case Start(owner):
                if self.status is S.RUNNING and self.owner != owner and self.lease > now:
                    return False
                if self.status not in (S.QUEUED, S.RUNNING):
                    return False
                if self.status is S.QUEUED:
                    self.go(S.RUNNING)
                again = self.owner == owner and self.lease
                self.owner, self.lease = owner, max(self.lease, now + 10) if again else now + 10
                return True
            case Renew(owner):
                if self.status not in OPEN or self.owner != owner:
                    return False
                self.lease = max(self.lease, now + 10)
                return True
            case Progress():
                return self.status in (S.RUNNING, S.WAITING_ACTION)
            case WaitForAction(action_id):
                if self.status not in (S.RUNNING, S.WAITING_ACTION):
                    return False
                self.waits.add(action_id)
                if self.status is S.RUNNING:
                    self.go(S.WAITING_ACTION)
                return True
            case ActionSettled(action_id):
                if action_id in self.waits:
                    self.waits.remove(action_id)
                    if not self.waits:
                        self.go(S.RUNNING)
                return True
            case _:
                return self.expect_end(event)

    def expect_end(self, event: Any) -> bool:
        by = getattr(event, "by", None)
        if by is not None and by != self.owner:
            return False
        wanted = ENDS[type(event)]
        if self.status is wanted:
            return not isinstance(event, Succeed) or self.ended_with == event.result_ref
        if self.status not in OPEN or (wanted is S.SUCCEEDED and self.status is not S.RUNNING):
            return False
        self.ended_with = getattr(event, "result_ref", None)
        self.end(wanted)
        return True

    def end(self, status: JobStatus) -> None:
        self.waits.clear()
        self.go(status)


class JobMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.now = 0.0
        self.store = InMemoryJobStore()
        self.models: dict[tuple[str, str], Model] = {}

    def wait(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    def teardown(self) -> None:
        self.wait(self.store.close())
        self.runner.close()

    @rule(scope_id=scopes, job_id=ids, lasts=st.none() | st.integers(1, 30))
    def create(self, scope_id: str, job_id: str, lasts: int | None) -> None:
        deadline = None if lasts is None else NOW + timedelta(seconds=self.now + lasts)
        job = self.wait(self.store.create(job_of(job_id, scope_id=scope_id, deadline=deadline, owner=None)))
        if (scope_id, job_id) not in self.models:
            assert job.version == 1
            self.models[scope_id, job_id] = Model(None if lasts is None else self.now + lasts)

    def apply(self, scope_id: str, job_id: str, event: JobEvent) -> None:
        model = self.models.get((scope_id, job_id))
        if model is None:
            return
        allowed = model.expect(event, self.now)
        try:
            now = NOW + timedelta(seconds=self.now)
            job = self.wait(self.store.apply(scope_id, job_id, event, now=now))
        except JobStateError as refused:
            assert not allowed, (event, refused)
        else:
            assert allowed, (event, job)

    @rule(scope_id=scopes, job_id=ids, owner=owners, renew=st.booleans())
    def work(self, scope_id: str, job_id: str, owner: str, renew: bool) -> None:
        until = NOW + timedelta(seconds=self.now + 10)
        self.apply(scope_id, job_id, Renew(owner, until) if renew else Start(owner, until))

    @rule(scope_id=scopes, job_id=ids, action_id=action_ids, settled=st.booleans())
    def act(self, scope_id: str, job_id: str, action_id: str, settled: bool) -> None:
        self.apply(scope_id, job_id, ActionSettled(action_id) if settled else WaitForAction(action_id))

    @rule(
        scope_id=scopes,
        job_id=ids,
        event=st.sampled_from(
            [
                Look(),
                Progress(0.5),
                Succeed("r1"),
                Succeed("r2"),
                Succeed("r1", by="w1"),
                Fail(JobFailure(code="c", message="m")),
                Fail(JobFailure(code="c", message="m"), by="w2"),
                Cancel(),
                TimeOut(),
            ]
        ),
    )
    def happen(self, scope_id: str, job_id: str, event: JobEvent) -> None:
        self.apply(scope_id, job_id, event)

    @rule(seconds=st.integers(1, 12))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def the_store_agrees_with_the_model(self) -> None:
        for (scope_id, job_id), model in self.models.items():
            job = self.wait(self.store.get(scope_id, job_id))
            assert job is not None
            assert (job.status, set(job.waiting_on)) == (model.status, model.waits)
            assert job.owner == model.owner
            assert (job.completed_at is not None) == job.is_terminal
            assert (job.status is S.WAITING_ACTION) == bool(job.waiting_on)

    @invariant()
    def nothing_happens_that_is_not_in_the_contract(self) -> None:
        for model in self.models.values():
            for before, after in pairwise(model.path):
                assert after in LEGAL[before]


JobMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
test_a_job_moves_as_the_contract_says = JobMachine.TestCase


def test_the_legal_moves_are_those_of_the_contract() -> None:
    ends = {S.FAILED, S.CANCELLED, S.TIMED_OUT}
    assert dict(LEGAL) == {
        S.QUEUED: {S.RUNNING, *ends},
        S.RUNNING: {S.WAITING_ACTION, S.SUCCEEDED, *ends},
        S.WAITING_ACTION: {S.RUNNING, *ends},
        **dict.fromkeys((S.SUCCEEDED, *ends), frozenset()),
    }
