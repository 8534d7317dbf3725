"""Actions against a dictionary: answers, second answers, late ones and other scopes' ones, with real tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from agent_runtime import (
    ActionConflictError,
    ActionExpiredError,
    ActionManager,
    ActionNotFoundError,
    ActionSpec,
    ActionStatus,
    InMemoryActionStore,
    InMemoryJobStore,
    JobManager,
    JobSpec,
    JobStatus,
)
from runtime_core.clock import ManualClock

T = TypeVar("T")
SCOPES = ("tenant-1", "tenant-2")


class ActionMachine(RuleBasedStateMachine):
    """Each tenant has one job; its actions are open, or settled for ever."""

    actions = Bundle("actions")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.jobs = JobManager(InMemoryJobStore(), clock=self.clock)
        self.root = ActionManager(InMemoryActionStore(), job_manager=self.jobs, clock=self.clock)
        self.managers = {scope_id: self.root.for_scope(scope_id) for scope_id in SCOPES}
        self.job_ids: dict[str, str] = {}
        for scope_id in SCOPES:
            job = self.wait(self.jobs.create(JobSpec(scope_id=scope_id)))
            self.wait(self.jobs.for_scope(scope_id).start(job.job_id))
            self.job_ids[scope_id] = job.job_id
        self.open: dict[tuple[str, str], float | None] = {}
        self.settled: dict[tuple[str, str], ActionStatus] = {}
        self.tokens: dict[tuple[str, str], str] = {}

    def wait(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    def teardown(self) -> None:
        self.wait(self.root.store.close())  # type: ignore[attr-defined]
        self.wait(self.jobs.store.close())  # type: ignore[attr-defined]
        self.runner.close()

    def now(self) -> float:
        return self.clock.monotonic()

    def notice_expiry(self, key: tuple[str, str]) -> None:
        expires = self.open.get(key)
        if expires is not None and expires <= self.now():
            del self.open[key]
            self.settled[key] = ActionStatus.EXPIRED

    @rule(target=actions, scope_id=st.sampled_from(SCOPES), lasts=st.none() | st.integers(1, 9))
    def require(self, scope_id: str, lasts: int | None) -> tuple[str, str]:
        spec = ActionSpec(job_id=self.job_ids[scope_id], type="confirm", timeout_seconds=lasts)
        action = self.wait(self.managers[scope_id].require_action(spec))
        key = (scope_id, action.action_id)
        assert action.resume_token is not None
        self.open[key] = None if lasts is None else self.now() + lasts
        self.tokens[key] = action.resume_token
        return key

    @rule(key=actions, by_token=st.booleans(), from_scope=st.sampled_from(SCOPES))
    def resolve(self, key: tuple[str, str], by_token: bool, from_scope: str) -> None:
        manager, (scope_id, action_id) = self.managers[from_scope], key
        if from_scope == scope_id:
            self.notice_expiry(key)
        try:
            if by_token:
                action = self.wait(manager.resolve(self.tokens[key], resolution={"by": action_id}))
            else:
                action = self.wait(manager.resolve(action_id=action_id, resolution={"by": action_id}))
        except ActionNotFoundError:
            assert from_scope != scope_id
        except ActionExpiredError:
            assert self.settled[key] is ActionStatus.EXPIRED
        except ActionConflictError as refused:
            assert self.settled[key].value == refused.status
        else:
            assert key in self.open and action.resolution == {"by": action_id}
            del self.open[key]
            self.settled[key] = ActionStatus.RESOLVED

    @rule(key=actions)
    def withdraw(self, key: tuple[str, str]) -> None:
        self.notice_expiry(key)
        action = self.wait(self.managers[key[0]].cancel(key[1]))
        if key in self.open:
            del self.open[key]
            self.settled[key] = ActionStatus.CANCELLED
        assert action.status is self.settled[key]

    @rule(seconds=st.integers(1, 5))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def sweep(self) -> None:
        self.wait(self.root.sweep())
        for key in list(self.open):
            self.notice_expiry(key)

    @invariant()
    def every_action_is_what_the_model_says(self) -> None:
        for key in self.open:
            assert self.wait(self.managers[key[0]].get(key[1])).status is ActionStatus.PENDING
        for key, status in self.settled.items():
            assert self.wait(self.managers[key[0]].get(key[1])).status is status

    @invariant()
    def a_job_waits_exactly_while_it_has_open_actions(self) -> None:
        for scope_id in SCOPES:
            job = self.wait(self.jobs.for_scope(scope_id).get(self.job_ids[scope_id]))
            assert set(job.waiting_on) == {action_id for scope, action_id in self.open if scope == scope_id}
            assert job.status is (JobStatus.WAITING_ACTION if job.waiting_on else JobStatus.RUNNING)


ActionMachine.TestCase.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
test_an_action_is_answered_once_in_its_own_scope_and_in_time = ActionMachine.TestCase
