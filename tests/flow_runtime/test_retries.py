"""The attempts of a node: which failures are tried again, and how long the pauses are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.ir import Backoff
from agentflow.settings import NodeSettings
from flow_runtime.attempts import attempt, pause_s
from flow_runtime.errors import ModelFailed, NodeTimeout, OutputInvalid
from runtime_core.clock import ManualClock
from support.flows import small_flow
from support.waiting import until


def settings(**changes: Any) -> NodeSettings:
    return NodeSettings(**{"timeout_s": 30, "attempts": 5, "backoff_s": 1.0} | changes)


@pytest.mark.parametrize(
    ("changes", "pauses"),
    [
        ({}, [1, 1, 1, 1]),
        ({"backoff": "exponential"}, [1, 2, 4, 8]),
        ({"backoff": "exponential", "max_backoff_s": 3.0}, [1, 2, 3, 3]),
        ({"max_backoff_s": 0.5}, [0.5, 0.5, 0.5, 0.5]),
        ({"backoff": "exponential", "jitter": True}, [0.25, 0.5, 1, 2]),
    ],
)
async def test_the_pauses_between_attempts(changes: dict[str, Any], pauses: Sequence[float]):
    clock = ManualClock()
    began: list[float] = []

    async def fail(_timeout_s: float) -> None:
        began.append(clock.monotonic())
        raise ModelFailed("down")

    task = asyncio.create_task(
        attempt(fail, settings(**changes), clock=clock, draw=lambda: 0.25, remaining_s=lambda: None)
    )
    for pause in pauses:
        await until(lambda: clock.sleepers == 1)
        clock.advance(pause)
    done = await task
    assert done.attempts == 5
    assert [later - earlier for earlier, later in pairwise(began)] == list(pauses)


@given(
    backoff_s=st.floats(0, 1e6),
    backoff=st.sampled_from(["constant", "exponential"]),
    limit=st.none() | st.floats(0.001, 1e6),
    failed=st.integers(1, 10**9),
    drawn=st.floats(0, 1, exclude_max=True),
)
def test_a_pause_is_finite_never_negative_and_within_its_limit(
    backoff_s: float, backoff: Backoff, limit: float | None, failed: int, drawn: float
):
    given_settings = settings(backoff_s=backoff_s, backoff=backoff, max_backoff_s=limit)
    pause = pause_s(given_settings, failed, lambda: drawn)
    assert 0 <= pause <= (limit if limit is not None else 1e25)
    jittered = settings(backoff_s=backoff_s, backoff=backoff, max_backoff_s=limit, jitter=True)
    assert 0 <= pause_s(jittered, failed, lambda: drawn) <= pause


@pytest.mark.parametrize(
    ("error", "kind"),
    [(NodeTimeout("slow"), "timeout"), (ModelFailed("down"), "error"), (OutputInvalid("?"), "validation_fail")],
)
async def test_only_the_listed_kinds_of_failure_are_tried_again(error: Exception, kind: str):
    async def fail(_timeout_s: float) -> None:
        raise error

    for listed, attempts in ((frozenset({kind}), 3), (frozenset({"timeout", "error", "validation_fail"}) - {kind}, 1)):
        tried = settings(attempts=3, backoff_s=0, retry_on=listed)
        done = await attempt(fail, tried, clock=ManualClock(), draw=lambda: 0.0, remaining_s=lambda: None)
        assert done.attempts == attempts
        assert done.failure is not None and done.failure.kind == kind


async def test_a_pause_that_the_deadline_does_not_leave_room_for_is_not_begun():
    async def fail(_timeout_s: float) -> None:
        raise ModelFailed("down")

    clock = ManualClock()
    done = await attempt(fail, settings(), clock=clock, draw=lambda: 0.0, remaining_s=lambda: 0.9)
    assert done.attempts == 1
    assert clock.sleepers == 0


def test_the_flow_file_says_it_and_exponential_pauses_are_bounded_without_a_word():
    from agentflow import plan

    flow = small_flow(
        """
        a:
          inputs: [{name: x, type: number}]
          outputs: [{name: y, type: number}]
          transform: {mode: declarative, spec: {op: io.format_response, args: {template: "${x}"}}}
          runtime: {retries: 3, retry_on: [timeout], backoff: exponential, jitter: true}
        """,
        ["_input.x -> a.x", "a.y -> _output"],
    )
    found = plan(flow).settings["a"]
    assert (found.retry_on, found.backoff, found.max_backoff_s, found.jitter) == (
        frozenset({"timeout"}),
        "exponential",
        60.0,
        True,
    )
