"""Jobs against a table: any sequence of events, two tenants with the same ids, a clock moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

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
    WaitForAction,
    transition,
)
from agent_runtime.jobs.records import JobFailure, JobRecord, JobStatus
from agent_runtime.testing.records import NOW, job_of

T = TypeVar("T")

S = JobStatus
OPEN = {S.QUEUED, S.RUNNING, S.WAITING_ACTION}
ENDS: dict[type, JobStatus] = {Succeed: S.SUCCEEDED, Fail: S.FAILED, Cancel: S.CANCELLED}

new_keys = st.sampled_from([("tenant-1", "job-1"), ("tenant-2", "job-1"), ("tenant-1", "job-2")])
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
                until = (event.lease_until - NOW).total_seconds()
                self.owner, self.lease = owner, max(self.lease, until) if again else until
                return True
            case Renew(owner):
                if self.status not in OPEN or self.owner != owner:
                    return False
                self.lease = max(self.lease, (event.lease_until - NOW).total_seconds())
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


def lease_of(model: Model) -> datetime | None:
    return NOW + timedelta(seconds=model.lease) if model.lease else None


class JobMachine(RuleBasedStateMachine):
    """A few jobs, and as many events for each as there are steps: ends are rare, so that jobs get somewhere."""

    keys = Bundle("keys")

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

    @initialize(target=keys)
    def create_one(self) -> tuple[str, str]:
        return self.create(("tenant-1", "job-1"), None)

    @precondition(lambda self: len(self.models) < 2)
    @rule(target=keys, key=new_keys, lasts=st.none() | st.integers(4, 16).map(lambda drawn: drawn * 2))
    def create_another(self, key: tuple[str, str], lasts: int | None) -> tuple[str, str]:
        return self.create(key, lasts)

    def create(self, key: tuple[str, str], lasts: int | None) -> tuple[str, str]:
        scope_id, job_id = key
        deadline = None if lasts is None else NOW + timedelta(seconds=self.now + lasts)
        job = self.wait(self.store.create(job_of(job_id, scope_id=scope_id, deadline=deadline, owner=None)))
        if key not in self.models:
            assert job.version == 1
            self.models[key] = Model(None if lasts is None else self.now + lasts)
        return key

    def apply(self, key: tuple[str, str], event: JobEvent) -> None:
        allowed = self.models[key].expect(event, self.now)
        now = NOW + timedelta(seconds=self.now)
        try:
            job = self.wait(self.store.apply(*key, event, now=now))
        except JobStateError as refused:
            assert not allowed, (event, refused)
        else:
            assert allowed, (event, job)

    @rule(key=keys, owner=owners, renew=st.booleans(), lease_s=st.sampled_from([4, 10]))
    def work(self, key: tuple[str, str], owner: str, renew: bool, lease_s: int) -> None:
        until = NOW + timedelta(seconds=self.now + lease_s)
        self.apply(key, Renew(owner, until) if renew else Start(owner, until))

    @rule(key=keys, action_id=action_ids)
    def wait_for_an_action(self, key: tuple[str, str], action_id: str) -> None:
        self.apply(key, WaitForAction(action_id))

    @rule(key=keys, action_id=action_ids)
    def settle_an_action(self, key: tuple[str, str], action_id: str) -> None:
        self.apply(key, ActionSettled(action_id))

    @rule(key=keys, event=st.sampled_from([Look(), Progress(0.5), Progress(0.7)]))
    def look_or_go_on(self, key: tuple[str, str], event: JobEvent) -> None:
        self.apply(key, event)

    @rule(
        key=keys,
        event=st.sampled_from(
            [
                Succeed("r1"),
                Succeed("r2"),
                Fail(JobFailure(code="c", message="m")),
                Cancel(),
            ]
        ),
        really=st.integers(0, 2).map(lambda drawn: drawn == 0),
    )
    def end(self, key: tuple[str, str], event: JobEvent, really: bool) -> None:
        if really or self.models[key].status not in OPEN:
            self.apply(key, event)

    @rule(key=keys, by=owners, succeeds=st.booleans())
    def end_as_a_worker(self, key: tuple[str, str], by: str, succeeds: bool) -> None:
        """Mostly as one that does not hold the job any more."""
        if self.models[key].owner != by or self.models[key].status not in OPEN:
            self.apply(key, Succeed("r1", by=by) if succeeds else Fail(JobFailure(code="c", message="m"), by=by))

    @rule(seconds=st.sampled_from([2, 4, 6]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def the_store_agrees_with_the_model(self) -> None:
        for (scope_id, job_id), model in self.models.items():
            job = self.wait(self.store.get(scope_id, job_id))
            assert job is not None
            assert (job.status, set(job.waiting_on)) == (model.status, model.waits)
            assert job.owner == model.owner
            assert job.is_terminal or job.lease_until == lease_of(model)
            assert (job.completed_at is not None) == job.is_terminal
            assert (job.status is S.WAITING_ACTION) == bool(job.waiting_on)

    @invariant()
    def nothing_happens_that_is_not_in_the_contract(self) -> None:
        for model in self.models.values():
            for before, after in pairwise(model.path):
                assert after in LEGAL[before]


JobMachine.TestCase.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
test_a_job_moves_as_the_contract_says = JobMachine.TestCase


def events_at(now: float) -> list[JobEvent]:
    until = NOW + timedelta(seconds=now + 4)
    failure = JobFailure(code="c", message="m")
    return [
        *(Start("w1", until), Start("w2", until), Renew("w1", until), Look(), Progress(0.5)),
        *(WaitForAction("a1"), WaitForAction("a2"), ActionSettled("a1"), ActionSettled("a2")),
        *(Succeed("r1"), Succeed("r2", by="w1"), Fail(failure, by="w2"), Cancel()),
    ]


def explore(job: JobRecord, model: Model, now: float, depth: int) -> int:
    """How many histories there are from here on; each agrees with the model."""
    if depth == 0:
        return 1
    count = explore(job, model, now + 4, depth - 1)
    for event in events_at(now):
        expected = replace(model, waits={*model.waits}, path=[*model.path])
        allowed = expected.expect(event, now)
        try:
            after = transition(job, event, NOW + timedelta(seconds=now))
        except JobStateError:
            assert not allowed, (job, event)
            continue
        assert allowed, (job, event)
        facts = (after.status, after.owner, set(after.waiting_on))
        assert facts == (expected.status, expected.owner, expected.waits), (job, event)
        assert after.is_terminal or after.lease_until == lease_of(expected), (job, event)
        assert all(end in LEGAL[start] for start, end in pairwise(expected.path)), (job, event)
        count += explore(after, expected, now, depth - 1)
    return count


@pytest.mark.parametrize("deadline", [None, 8.0])
def test_every_short_history_of_a_job_is_as_the_contract_says(deadline: float | None) -> None:
    job = job_of(owner=None, deadline=None if deadline is None else NOW + timedelta(seconds=deadline))
    assert explore(job, Model(deadline), 0.0, depth=5) > 5_000


def test_the_legal_moves_are_those_of_the_contract() -> None:
    ends = {S.FAILED, S.CANCELLED, S.TIMED_OUT}
    assert dict(LEGAL) == {
        S.QUEUED: {S.RUNNING, *ends},
        S.RUNNING: {S.WAITING_ACTION, S.SUCCEEDED, *ends},
        S.WAITING_ACTION: {S.RUNNING, *ends},
        **dict.fromkeys((S.SUCCEEDED, *ends), frozenset()),
    }
