"""Resume tokens: whoever has one may answer one action, once; guessing, replaying or finding one must not work (S7)."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import pickle
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import (
    ActionConflictError,
    ActionExpiredError,
    ActionManager,
    ActionNotFoundError,
    ActionSpec,
    InMemoryActionStore,
    InMemoryEventBus,
    InMemoryJobStore,
    JobManager,
    JobSpec,
    RuntimeEvent,
    ScopeMismatchError,
    SqliteActionStore,
)
from agent_runtime.testing.records import action_of
from runtime_core.clock import ManualClock

CONFIRM = ActionSpec(type="confirm", payload={"message": "Proceed?"})


@pytest.fixture
async def store() -> AsyncIterator[InMemoryActionStore]:
    async with InMemoryActionStore() as opened:
        yield opened


@pytest.fixture
def manager(store: InMemoryActionStore) -> ActionManager:
    return ActionManager(store)


async def test_a_token_works_once_in_its_own_scope_and_in_time(store: InMemoryActionStore) -> None:
    clock = ManualClock()
    root = ActionManager(store, clock=clock)
    mine, theirs = root.for_scope("tenant-1"), root.for_scope("tenant-2")
    action = await mine.require_action(CONFIRM.model_copy(update={"timeout_seconds": 10}))
    late = await mine.require_action(CONFIRM.model_copy(update={"timeout_seconds": 10}))
    for wrong in (action.resume_token[:-1], action.resume_token + "A", "", "ü" * 43, "x" * 10_000, late.action_id):
        with pytest.raises(ActionNotFoundError):
            await mine.resolve(wrong, resolution={})
    with pytest.raises(ActionNotFoundError):
        await theirs.resolve(action.resume_token, resolution={})
    with pytest.raises(ActionNotFoundError):
        await theirs.resolve(action_id=action.action_id, resolution={})
    await mine.resolve(action.resume_token, resolution={"n": 1})
    with pytest.raises(ActionConflictError):
        await mine.resolve(action.resume_token, resolution={"n": 1})
    clock.advance(10)
    with pytest.raises(ActionExpiredError):
        await mine.resolve(late.resume_token, resolution={})
    with pytest.raises(ScopeMismatchError):
        await mine.require_action(CONFIRM.model_copy(update={"scope_id": "tenant-2"}))


async def test_of_many_that_answer_at_once_one_counts(manager: ActionManager) -> None:
    action = await manager.require_action(CONFIRM)
    answers = [manager.resolve(action.resume_token, resolution={"n": number}) for number in range(20)]
    outcomes = await asyncio.gather(*answers, return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["ActionConflictError"] * 19 + ["ActionRecord"]


async def test_tokens_are_256_random_bits(manager: ActionManager) -> None:
    tokens = [(await manager.require_action(CONFIRM)).resume_token for _ in range(200)]
    assert len(set(tokens)) == 200
    assert {len(token) for token in tokens if token} == {43}
    # every character position takes many values, except the last one, which holds four bits only
    assert all(len({token[position] for token in tokens if token}) > 30 for position in range(42))


async def test_the_store_finds_an_action_by_the_hash_alone() -> None:
    """Nothing compares secrets, so there is nothing whose time would tell how much of a guess was right."""
    asked: list[str] = []

    class Watched(InMemoryActionStore):
        async def find(self, scope_id: str, *, token_hash: str) -> Any:
            asked.append(token_hash)
            return await super().find(scope_id, token_hash=token_hash)

    async with Watched() as store:
        manager = ActionManager(store)
        token = (await manager.require_action(CONFIRM)).resume_token
        assert token is not None
        guesses = ["A" * 43, token[:20] + "A" * 23, token[:42] + ("E" if token[42] == "A" else "A")]
        for guess in guesses:
            with pytest.raises(ActionNotFoundError):
                await manager.resolve(guess, resolution={})
        await manager.resolve(token, resolution={})
    assert asked == [hashlib.sha256(text.encode()).hexdigest() for text in (*guesses, token)]


async def test_no_token_is_stored_logged_shown_or_announced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    jobs = JobManager(InMemoryJobStore())
    job = await jobs.start((await jobs.create(JobSpec())).job_id)
    bus = InMemoryEventBus()
    events: list[RuntimeEvent] = []
    await bus.subscribe(events.append)
    with caplog.at_level(logging.DEBUG):
        async with SqliteActionStore(tmp_path / "a.db") as store:
            manager = ActionManager(store, event_bus=bus, job_manager=jobs)
            action = await manager.require_action(ActionSpec(job_id=job.job_id, type="confirm"))
            token = action.resume_token
            assert token is not None
            errors: list[Exception] = []
            await manager.resolve(token, resolution={"approved": True})
            for call in (manager.resolve(token, resolution={}), manager.resolve(token + "x", resolution={})):
                try:
                    await call
                except Exception as exc:
                    errors.append(exc)
            await bus.flush()
            shown = [
                repr(action),
                str(action),
                action.model_dump_json(),
                repr(action.model_dump()),
                *map(repr, await manager.list()),
                *(each.model_dump_json() for each in events),
                *map(repr, errors),
                *map(str, errors),
                *(record.getMessage() for record in caplog.records),
            ]
        on_disk = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert len(events) == 2 and len(errors) == 2
    assert not [text for text in shown if token in text]
    assert token.encode() not in on_disk


def test_the_token_of_a_record_is_lost_when_it_is_read_again() -> None:
    action = action_of(resume_token="secret")
    assert type(action).model_validate_json(action.model_dump_json()).resume_token is None
    assert pickle.loads(pickle.dumps(action)) == action
