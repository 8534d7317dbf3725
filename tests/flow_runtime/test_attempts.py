"""The attempts of a node: how many, how long each, what lies between them, and what a failure is called."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from agentflow.errors import TemplateFailed
from agentflow.settings import NodeSettings
from flow_runtime.attempts import Attempted, attempt, once
from flow_runtime.errors import CodeFailed, CodeTimeout, ModelFailed, NodeTimeout, OperationTimeout, OutputInvalid
from runtime_core.clock import ManualClock
from support.waiting import until


class Body:
    """Does what its script says, one entry an attempt: raises an exception, or returns a value."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.given: list[float] = []

    async def __call__(self, timeout_s: float) -> Any:
        self.given.append(timeout_s)
        what = self.script.pop(0)
        if isinstance(what, BaseException):
            raise what
        return what


def settings(*, attempts: int = 1, timeout_s: float = 10, backoff_s: float = 0) -> NodeSettings:
    return NodeSettings(timeout_s=timeout_s, attempts=attempts, backoff_s=backoff_s)


def no_deadline() -> None:
    return None


async def tried(
    body: Any,
    given: NodeSettings,
    *,
    clock: ManualClock | None = None,
    remaining_s: Callable[[], float | None] = no_deadline,
) -> Attempted:
    return await attempt(body, given, clock=clock or ManualClock(), draw=lambda: 0.0, remaining_s=remaining_s)


async def test_the_first_success_ends_it():
    body = Body(ModelFailed("down"), "value", "never")
    assert await tried(body, settings(attempts=5)) == Attempted(value="value", attempts=2)
    assert body.given == [10, 10]


async def test_the_last_failure_is_the_result_and_tells_how_many_attempts_there_were():
    done = await tried(Body(ModelFailed("one"), NodeTimeout("two")), settings(attempts=2))
    assert done.failure is not None
    assert (done.failure.reason, done.failure.kind, done.failure.attempts, done.attempts) == ("two", "timeout", 2, 2)


async def test_the_same_pause_lies_between_attempts_and_none_after_the_last():
    clock = ManualClock()
    body = Body(*(ModelFailed("down") for _ in range(3)))
    task = asyncio.create_task(tried(body, settings(attempts=3, backoff_s=7), clock=clock))
    for made in (1, 2):
        await until(lambda: clock.sleepers == 1)
        assert len(body.given) == made
        clock.advance(6.9)
        await asyncio.sleep(0)
        assert len(body.given) == made
        clock.advance(0.1)
        await until(lambda made=made: len(body.given) == made + 1)
    assert (await task).attempts == 3
    assert clock.sleepers == 0


async def test_no_attempt_may_take_longer_than_the_request_has_left():
    body = Body("value")
    await tried(body, settings(timeout_s=30), remaining_s=lambda: 4.0)
    assert body.given == [4.0]


async def test_nothing_more_is_tried_when_the_pause_would_outlast_the_request():
    left = iter([9.0, 5.0])
    body = Body(ModelFailed("down"), "never")
    done = await tried(body, settings(attempts=2, backoff_s=5), remaining_s=lambda: next(left))
    assert done.failure is not None and done.attempts == 1


async def test_an_attempt_after_the_deadline_ends_at_once_as_a_timeout():
    async def body(timeout_s: float) -> None:
        await asyncio.sleep(30)

    done = await tried(body, settings(attempts=3), remaining_s=lambda: 0.0)
    assert done.failure is not None
    assert (done.failure.kind, done.attempts) == ("timeout", 1)


async def test_an_attempt_is_cut_at_its_timeout_and_says_so():
    left = asyncio.Event()

    async def body(timeout_s: float) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            left.set()

    done = await once(body, settings(timeout_s=0.05), number=4, remaining_s=no_deadline)
    assert left.is_set()
    assert done.failure is not None
    assert (done.failure.reason, done.failure.kind, done.attempts) == ("it took longer than 0.05 s", "timeout", 4)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NodeTimeout("slow"), "timeout"),
        (CodeTimeout("slow"), "timeout"),
        (OperationTimeout("slow"), "timeout"),
        (TimeoutError("a library's own"), "timeout"),
        (OutputInvalid("odd"), "validation_fail"),
        (ModelFailed("down"), "error"),
        (CodeFailed("raised"), "error"),
        (TemplateFailed("no such field"), "error"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_each_error_is_of_the_kind_that_fallback_asks_for_and_keeps_its_sentence(error: Exception, kind: str):
    done = await tried(Body(error), settings())
    assert done.failure is not None
    assert (done.failure.kind, done.failure.reason) == (kind, str(error))


async def test_an_error_that_nobody_foresaw_is_a_failure_and_leaves_a_traceback_in_the_log(
    caplog: pytest.LogCaptureFixture,
):
    with caplog.at_level(logging.ERROR):
        done = await tried(Body(ZeroDivisionError("division by zero")), settings())
    assert done.failure is not None
    assert (done.failure.kind, done.failure.reason) == ("error", "ZeroDivisionError: division by zero")
    assert caplog.records[0].exc_info is not None


async def test_whoever_cancels_the_node_gets_the_cancellation_and_no_further_attempt():
    started = asyncio.Event()
    calls = 0

    async def body(timeout_s: float) -> None:
        nonlocal calls
        calls += 1
        started.set()
        await asyncio.sleep(30)

    task = asyncio.create_task(tried(body, settings(attempts=5, timeout_s=60)))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert calls == 1


async def test_a_body_that_cancels_itself_has_failed_and_is_tried_again():
    done = await tried(Body(asyncio.CancelledError(), "value"), settings(attempts=2))
    assert done == Attempted(value="value", attempts=2)
