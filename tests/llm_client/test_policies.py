"""The pure parts: what is tried next, when a circuit opens, how long a turn takes, which requests are the same."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_client import AttemptBudget, BreakerConfig, CompletionResult, EmbeddingSpec, RequestSpec, ResponseCache
from llm_client.breaker import CLOSED, Breakers, admitted, after, wait_s
from llm_client.hashing import request_hash
from llm_client.limits import Limits, OverLimit
from llm_client.providers.protocol import Target
from llm_client.retry import Failure, Next, RetryPolicy, Tries
from llm_client.usage import estimated_input
from runtime_core.clock import ManualClock
from support.waiting import until

TARGET = Target("chat", "sim", "m", params={"temperature": 0.5})
CONFIG = BreakerConfig(failure_threshold=3, cooldown_s=10.0)
PASSING = Failure(retry=True, fallback=True)
FINAL = Failure(retry=False, fallback=False)


class Named:
    """As much of a provider as deciding needs."""

    def __init__(self, role: str) -> None:
        self.target = Target(role, "sim", role)


def tries(*roles: str, attempts: int = 2, budget: AttemptBudget | None = None) -> Tries:
    policy = RetryPolicy(attempts=attempts, backoff_s=1.0, max_backoff_s=3.0, jitter=False, max_retry_after_s=60)
    chain = [Named(role) for role in roles]
    return Tries(chain, policy, budget or AttemptBudget(attempts))  # pyright: ignore[reportArgumentType]


def steps(made: Tries, failure: Failure, left_s: float | None = None) -> list[tuple[str, float]]:
    """What is tried until it gives up, when everything fails alike."""
    found: list[tuple[str, float]] = []
    step: Next | None = made.first()
    while step is not None:
        found.append((step.provider.target.role, step.pause_s))
        step = made.after(failure, left_s=left_s)
    return found


def test_each_role_has_its_tries_then_the_next_role_has_its_own() -> None:
    assert steps(tries("a", "b"), PASSING) == [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert steps(tries("a", "b"), FINAL) == [("a", 0)]
    assert steps(tries("a", "b"), Failure(retry=False, fallback=True)) == [("a", 0), ("b", 0)]


def test_pauses_double_up_to_their_bound_and_retry_after_replaces_them() -> None:
    assert [pause for _, pause in steps(tries("a", attempts=5), PASSING)] == [0, 1, 2, 3, 3]
    assert steps(tries("a"), Failure(True, False, retry_after=7)) == [("a", 0), ("a", 7)]


def test_a_pause_beyond_the_deadline_is_not_begun() -> None:
    asked_for_long = Failure(True, True, retry_after=1e9)
    assert steps(tries("a", "b"), asked_for_long, left_s=5) == [("a", 0), ("b", 0)]
    assert steps(tries("a"), asked_for_long) == [("a", 0)]
    assert steps(tries("a", "b"), PASSING, left_s=-1) == [("a", 0)]


def test_a_shared_budget_counts_the_tries_of_all_who_share_it() -> None:
    budget = AttemptBudget(3)
    assert len(steps(tries("a", attempts=2, budget=budget), PASSING)) == 2
    assert len(steps(tries("a", attempts=2, budget=budget), PASSING)) == 1
    assert steps(tries("a", budget=budget), PASSING) == []
    assert budget.used() == budget.used("a") == 3


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_jitter_stays_within_the_pause(draws: list[float]) -> None:
    policy = RetryPolicy(backoff_s=1.0, max_backoff_s=8.0)
    for failed, draw in enumerate(draws, start=1):
        assert 0 <= policy.pause_s(failed, retry_after=None, draw=lambda draw=draw: draw) <= min(2 ** (failed - 1), 8)


def test_a_circuit_opens_after_failures_in_a_row_and_closes_after_a_good_probe() -> None:
    state = CLOSED
    for _ in range(3):
        assert wait_s(state, CONFIG, 0) is None
        state = after(state, CONFIG, 0, succeeded=False)
    assert wait_s(state, CONFIG, 4) == 6
    assert after(state, CONFIG, 4, succeeded=False) == state, "a straggler does not prolong it"
    assert wait_s(state, CONFIG, 10) is None
    probing = admitted(state)
    assert wait_s(probing, CONFIG, 10) == 10, "one probe at a time"
    assert wait_s(after(probing, CONFIG, 11, succeeded=False), CONFIG, 12) == 9
    assert wait_s(after(probing, CONFIG, 11, succeeded=None), CONFIG, 12) is None, "a probe that told nothing"
    assert after(probing, CONFIG, 11, succeeded=True) == CLOSED


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([True, False, None])), max_size=60))
def test_a_circuit_never_stays_shut_for_ever(happenings: list[tuple[bool, bool | None]]) -> None:
    breakers, now, out = Breakers(CONFIG), 0.0, 0
    for comes, outcome in happenings:
        now += 1
        if comes and breakers.admit(("p", "m"), now) is None:
            out += 1
        elif out:
            out -= 1
            breakers.report(("p", "m"), now, succeeded=outcome)
    for _ in range(out):
        breakers.report(("p", "m"), now, succeeded=None)
    assert breakers.admit(("p", "m"), now + CONFIG.cooldown_s) is None


async def test_a_limit_a_minute_makes_its_callers_wait_in_turn_and_refuses_who_cannot() -> None:
    clock = ManualClock()
    limits, target = Limits(clock), Target("r", "sim", "m", requests_per_minute=2)
    for _ in range(2):
        await limits.acquire(target, estimate=0, left_s=0)
    with pytest.raises(OverLimit) as refused:
        await limits.acquire(target, estimate=0, left_s=10)
    assert refused.value.retry_after == pytest.approx(30)
    async with asyncio.TaskGroup() as group:
        turns = [group.create_task(limits.acquire(target, estimate=0, left_s=90)) for _ in range(2)]
        for done in (1, 2):
            await until(lambda done=done: clock.sleepers == 3 - done)
            clock.advance(30)
            await until(lambda done=done: sum(turn.done() for turn in turns) == done)


async def test_tokens_that_were_not_used_are_given_back() -> None:
    clock = ManualClock()
    limits, target = Limits(clock), Target("r", "sim", "m", tokens_per_minute=100)
    (await limits.acquire(target, estimate=90, left_s=0)).release(10)
    (await limits.acquire(target, estimate=90, left_s=0)).release(190)
    with pytest.raises(OverLimit):
        await limits.acquire(target, estimate=1, left_s=0)


async def test_no_more_calls_at_once_than_allowed_and_a_cancelled_one_takes_no_place() -> None:
    limits, target = Limits(ManualClock(), max_concurrency=2), Target("r", "sim", "m", concurrency=1)
    first = await limits.acquire(target, estimate=0, left_s=None)
    waiting = asyncio.create_task(limits.acquire(target, estimate=0, left_s=None))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(OverLimit):
        await limits.acquire(target, estimate=0, left_s=0.01)
    first.release(None)
    (await limits.acquire(target, estimate=0, left_s=0.01)).release(None)


SAME = [
    RequestSpec(messages=({"role": "user", "content": "x"},), params={"temperature": 0.5, "max_tokens": 9}),
    RequestSpec(messages=({"content": "x", "role": "user"},), params={"max_tokens": 9}),
    RequestSpec(messages=({"role": "user", "content": "x", "name": None},), params={"max_tokens": 9, "stop": None}),
    RequestSpec(
        messages=({"role": "user", "content": "x"},), params={"max_tokens": 9, "n": 1, "timeout": 3}, tool_choice="auto"
    ),
]
OTHERS = [
    RequestSpec(messages=({"role": "user", "content": "y"},), params={"max_tokens": 9}),
    RequestSpec(messages=({"role": "user", "content": "x"},), params={"max_tokens": 8}),
    RequestSpec(messages=({"role": "user", "content": "x"},), params={"max_tokens": 9, "temperature": 0.6}),
    RequestSpec(messages=({"role": "user", "content": "x"},), params={"max_tokens": 9}, tools=({"type": "function"},)),
    EmbeddingSpec(inputs=("x",)),
    RequestSpec(messages=({"role": "user", "content": "\ud800"},), params={"seed": 2**70}),
]


def test_the_same_request_has_one_hash_however_it_is_written() -> None:
    assert len({request_hash(TARGET, request) for request in SAME}) == 1
    assert len({request_hash(TARGET, request) for request in [SAME[0], *OTHERS]}) == 1 + len(OTHERS)
    assert request_hash(TARGET, SAME[0]) != request_hash(Target("chat", "sim", "other"), SAME[0])


def test_our_own_count_takes_a_picture_for_a_thousand_tokens() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10**6}}
    assert 1000 <= estimated_input(RequestSpec(messages=({"role": "user", "content": [picture]},))) < 1100


def test_the_cache_is_bounded_forgets_with_time_and_never_crosses_scopes() -> None:
    clock = ManualClock()
    cache = ResponseCache(max_entries=2, max_bytes=10_000, ttl_s=60, clock=clock)
    result = CompletionResult(content="x", finish_reason="stop")
    for scope in ("a", "b", "c"):
        cache.put(scope, "h", result)
    assert (cache.get("a", "h"), cache.get("b", "h"), cache.get("c", "h")) == (None, result, result)
    cache.put("b", "big", CompletionResult(content="x" * 10_000, finish_reason="stop"))
    assert cache.get("b", "big") is None
    clock.advance(60)
    assert cache.get("c", "h") is None
