"""What every ActionStore promises, as tests; see `database` for how to use them."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from agent_runtime.actions.machine import Expire, JobTold, Resolve, Withdraw
from agent_runtime.actions.records import NOBODY_WAITS, ActionStatus
from agent_runtime.actions.store import ActionCursor, ActionFilter, ActionStore
from agent_runtime.errors import ActionConflictError, ActionNotFoundError
from agent_runtime.testing.faults import faulty
from agent_runtime.testing.records import NOW, Persistent, action_of, later
from runtime_core.errors import IdentityError


@pytest.mark.asyncio
class ActionStoreContract:
    """Give it a fixture `empty_store`: a new, open store for each test."""

    @pytest.fixture(params=["plain", "faulty"])
    def store(self, request: pytest.FixtureRequest, empty_store: ActionStore) -> Any:
        """Behind faults, a third of all calls or their answers is lost; it is called until it answers."""
        if request.param == "faulty":
            empty_store = faulty(empty_store, Random(11), rate=0.33)
        return Persistent(empty_store)

    async def test_an_action_comes_back_as_it_was_kept(self, store: Any) -> None:
        action = action_of(
            job_id="job-1", expires_at=later(9.000001), payload={"message": "Proceed?", "deep": [{"ü": 1}]}
        )
        assert await store.create(action, token_hash="h") == action
        assert await store.get("tenant-1", "action-1") == action
        assert await store.find("tenant-1", token_hash="h") == action
        answer = Resolve({"approved": True}, answer_id="r", resolved_by="ada")
        resolved = await store.apply("tenant-1", "action-1", answer, now=later(1))
        assert await store.get("tenant-1", "action-1") == resolved == await store.find("tenant-1", token_hash="h")
        assert (resolved.status, resolved.resolution, resolved.resolved_by, resolved.resolved_at) == (
            ActionStatus.RESOLVED,
            {"approved": True},
            "ada",
            later(1),
        )

    async def test_an_action_that_is_created_again_has_only_its_newest_token(self, store: Any) -> None:
        await store.create(action_of(), token_hash="old")
        again = action_of(created_at=later(5), expires_at=later(9))
        assert await store.create(again, token_hash="new") == action_of()
        assert await store.find("tenant-1", token_hash="old") is None
        assert await store.find("tenant-1", token_hash="new") == action_of()
        with pytest.raises(ActionConflictError, match="something else"):
            await store.create(action_of(payload={"other": 1}), token_hash="h")
        await store.apply("tenant-1", "action-1", Withdraw(NOBODY_WAITS), now=later(1))
        assert (await store.create(again, token_hash="newest")).is_abandoned
        assert await store.find("tenant-1", token_hash="newest") is None

    async def test_of_twenty_answers_one_counts(self, store: Any) -> None:
        await store.create(action_of(), token_hash="h")

        async def resolve(number: int) -> bool:
            try:
                await store.apply("tenant-1", "action-1", Resolve({"n": number}, answer_id=f"r{number}"), now=NOW)
            except ActionConflictError as refused:
                assert refused.status == "resolved"
                return False
            return True

        assert sum(await asyncio.gather(*map(resolve, range(20)))) == 1
        action = await store.get("tenant-1", "action-1")
        assert (action.version, f"r{action.resolution['n']}") == (2, action.answer_id)

    async def test_an_answer_that_comes_too_late_expires_the_action(self, store: Any) -> None:
        await store.create(action_of(expires_at=later(5)), token_hash="h")
        late = await store.apply("tenant-1", "action-1", Resolve({}, answer_id="r"), now=later(5))
        assert (late.status, late.resolution) == (ActionStatus.EXPIRED, None)
        assert await store.apply("tenant-1", "action-1", Resolve({}, answer_id="r2"), now=later(6)) == late
        assert await store.apply("tenant-1", "action-1", Withdraw(), now=later(6)) == late

    async def test_scopes_do_not_see_each_other(self, store: Any) -> None:
        await store.create(action_of(), token_hash="h")
        await store.create(action_of(scope_id="tenant-2", payload={"other": 1}), token_hash="h")
        assert (await store.get("tenant-1", "action-1")).payload == {}
        assert (await store.find("tenant-2", token_hash="h")).payload == {"other": 1}
        assert await store.find("tenant-3", token_hash="h") is None
        with pytest.raises(ActionNotFoundError):
            await store.apply("tenant-3", "action-1", Withdraw(), now=NOW)
        assert await store.list("tenant-3") == []
        with pytest.raises(IdentityError):
            await store.list("")

    async def test_actions_are_listed_the_newest_first(self, store: Any) -> None:
        for number in range(4):
            action = action_of(f"action-{number}", created_at=later(number), job_id=f"job-{number % 2}")
            await store.create(action, token_hash=str(number))
        await store.apply("tenant-1", "action-3", Withdraw(), now=later(9))
        which = ActionFilter(status=ActionStatus.PENDING, job_id="job-0")
        assert [action.action_id for action in await store.list("tenant-1", which)] == ["action-2", "action-0"]
        assert [action.action_id for action in await store.list("tenant-1", limit=1)] == ["action-3"]

    async def test_a_list_goes_on_where_a_page_ended_also_among_actions_of_one_moment(self, store: Any) -> None:
        for number in range(6):
            action = action_of(f"action-{number}", created_at=later(number // 3 + 0.000001))
            await store.create(action, token_hash=str(number))
        await store.apply("tenant-1", "action-4", Withdraw(), now=later(9))
        seen: list[str] = []
        after = None
        while page := await store.list("tenant-1", ActionFilter(ActionStatus.PENDING), after=after, limit=2):
            seen += [each.action_id for each in page]
            after = ActionCursor(page[-1].created_at.timestamp(), page[-1].action_id)
        assert seen == ["action-5", "action-3", "action-2", "action-1", "action-0"]

    async def test_what_is_due_and_whom_nobody_told_is_found_until_it_is_done(self, store: Any) -> None:
        await store.create(action_of("late", expires_at=later(5), job_id="job-1"), token_hash="1")
        await store.create(action_of("later", scope_id="tenant-2", expires_at=later(3)), token_hash="2")
        await store.create(action_of("never"), token_hash="3")
        assert [action.action_id for action in await store.due(now=later(5), limit=9)] == ["later", "late"]
        await store.apply("tenant-1", "late", Expire(), now=later(5))
        await store.apply("tenant-2", "later", Expire(), now=later(5))
        assert await store.due(now=later(5), limit=9) == []
        assert [action.action_id for action in await store.untold(limit=9)] == ["late"], "the other one has no job"
        await store.apply("tenant-1", "late", JobTold(), now=later(6))
        assert await store.untold(limit=9) == []

    async def test_settled_actions_are_forgotten_by_age(self, store: Any) -> None:
        for number in range(3):
            await store.create(action_of(f"action-{number}"), token_hash=str(number))
            await store.apply("tenant-1", f"action-{number}", Withdraw(), now=later(number))
        await store.create(action_of("open"), token_hash="open")
        while await store.forget("tenant-1", older_than=later(2), limit=1):
            pass
        assert {action.action_id for action in await store.list("tenant-1")} == {"action-2", "open"}

    async def test_what_a_job_has_not_been_told_is_not_forgotten(self, store: Any) -> None:
        for number in range(2):
            await store.create(action_of(f"action-{number}", job_id="job-1"), token_hash=str(number))
            await store.apply("tenant-1", f"action-{number}", Withdraw(), now=later(number))
        await store.apply("tenant-1", "action-1", JobTold(), now=later(2))
        while await store.forget("tenant-1", older_than=later(9), limit=1):
            pass
        assert [action.action_id for action in await store.untold(limit=9)] == ["action-0"]
        await store.apply("tenant-1", "action-0", JobTold(), now=later(3))
        while await store.forget("tenant-1", older_than=later(9), limit=1):
            pass
        assert await store.list("tenant-1") == []
