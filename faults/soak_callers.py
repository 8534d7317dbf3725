"""What a process of the soak does until it is killed: calls of every kind, at a provider of every mood."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from random import Random
from typing import Any

from agent_runtime import BudgetExceededError
from faults.rig import ROLE, SCOPE, Desk, Said, desk
from llm_client import (
    BreakerConfig,
    CallFailed,
    CallStoreError,
    EmbeddingSpec,
    IdempotencyTracker,
    RequestContext,
    RequestSpec,
    RetryPolicy,
    StreamEnded,
)
from llmhub_runtime.sim import Script, parse_script

LEASE_S = 5.0
CLAIM_LEASE_S = 10.0
KEY_EVERY_S = 0.4
CALLERS = 9
RETRY = RetryPolicy(attempts=3, backoff_s=0.01, max_backoff_s=0.05)
NEVER_OPEN = BreakerConfig(failure_threshold=10**9)
PAUSE_S = 0.02
MAX_TOKENS = 16

MOODS: dict[str, tuple[int, dict[str, Any]]] = {
    # what a message contains: how many of a hundred, and what the provider does then
    "plain": (34, {}),
    "slow": (8, {"latency_ms": 250}),
    "dripping": (5, {"ms_per_token": 15}),
    "small": (10, {"usage": {"prompt_tokens": 3, "completion_tokens": 1}}),
    "silent": (8, {"usage": "missing"}),
    "negative": (3, {"usage": {"prompt_tokens": -5, "completion_tokens": 7}}),
    "huge": (2, {"usage": {"prompt_tokens": 10**12, "completion_tokens": 7}}),
    "limited": (4, {"fault": {"kind": "rate_limit"}}),
    "failing": (4, {"fault": {"kind": "error", "status": 500}}),
    "gateway": (2, {"fault": {"kind": "error", "status": 502}}),
    "refusing": (3, {"fault": {"kind": "error", "status": 400}}),
    "cut": (5, {"fault": {"kind": "cut_stream", "after_chunks": 3}}),
    "aborted": (3, {"fault": {"kind": "cut_stream", "after_chunks": 2, "how": "abort"}}),
    "reset": (3, {"fault": {"kind": "reset"}}),
    "garbled": (3, {"fault": {"kind": "malformed", "body": "bad_json"}}),
    "erring": (2, {"fault": {"kind": "stream_error", "after_chunks": 2}}),
    "hanging": (1, {"fault": {"kind": "hang", "after_chunks": 1}}),
}


def provider_script() -> Script:
    """A keyed question has another answer each time that it is asked; the others are answered by their mood."""
    answers = [f"answer number {number}" for number in range(97)]
    keyed = {"match": {"contains": "keyed"}, "reply": {"answers": answers, "cycle": True, "latency_ms": 60}}
    moods = [{"match": {"contains": f" {mood} "}, "reply": reply} for mood, (_, reply) in MOODS.items()]
    return parse_script({"rules": [keyed, *moods]})


async def call_until(stop: Callable[[], bool], url: str, base: str, said: Said, seed: int) -> None:
    """Until `stop` says so."""
    tracker = IdempotencyTracker(request_timeout=CLAIM_LEASE_S)
    options = {"retry": RETRY, "breaker_config": NEVER_OPEN, "idempotency_tracker": tracker, "lease_s": LEASE_S}
    async with desk(url, base, **options) as place:

        async def repeat(call: Callable[[Desk, Random, Said], Coroutine[Any, Any, None]], number: int) -> None:
            choose = Random(f"{seed}:{number}")
            while not stop():
                try:
                    await call(place, choose, said)
                except BudgetExceededError:
                    said.say(said="refused")
                    await asyncio.sleep(PAUSE_S)
                except (CallFailed, CallStoreError, TimeoutError) as exc:
                    said.say(said=type(exc).__name__)

        await asyncio.gather(repeat(_keyed, 0), *(repeat(_call, number) for number in range(1, CALLERS)))


async def _call(place: Desk, choose: Random, said: Said) -> None:
    kinds = [_complete, _complete, _complete, _stream, _stream, _leave, _give_up, _embed]
    await choose.choice(kinds)(place, _question(choose), _context(choose), choose)
    said.say(said="answered")


async def _complete(place: Desk, question: RequestSpec, context: RequestContext, choose: Random) -> None:
    await place.engine.complete(question, context=context)


async def _stream(place: Desk, question: RequestSpec, context: RequestContext, choose: Random) -> None:
    async for _ in place.engine.stream(question, context=context):
        pass


async def _leave(place: Desk, question: RequestSpec, context: RequestContext, choose: Random) -> None:
    """In the middle of a stream."""
    left = choose.randrange(6)
    async with aclosing(place.engine.stream(question, context=context)) as events:
        async for _ in events:
            if (left := left - 1) < 0:
                return


async def _give_up(place: Desk, question: RequestSpec, context: RequestContext, choose: Random) -> None:
    """Cancel it from outside, at any instant of its life."""
    async with asyncio.timeout(choose.uniform(0, 0.06)):
        await place.engine.complete(question, context=context)


async def _embed(place: Desk, question: RequestSpec, context: RequestContext, choose: Random) -> None:
    await place.engine.embed(EmbeddingSpec(inputs=("some text to find again",), role="embed"), context=context)


async def _keyed(place: Desk, choose: Random, said: Said) -> None:
    """What all processes ask for at the same time, under one key."""
    at = time.monotonic()
    key = f"key-{int(at / KEY_EVERY_S)}"
    question = RequestSpec.of(f"The keyed question of {key}.", role=ROLE, max_tokens=MAX_TOKENS)
    context = RequestContext(tenant_id=SCOPE, user_id="ann")
    if choose.random() < 0.5:
        result = await place.engine.complete(question, context=context, idempotency_key=key)
    else:
        *_, last = [event async for event in place.engine.stream(question, context=context, idempotency_key=key)]
        if not isinstance(last, StreamEnded):
            return
        result = last.result
    said.say(said="keyed", key=key, answer=result.content, attempt=result.attempt_id)
    await asyncio.sleep(max(0.0, KEY_EVERY_S - (time.monotonic() - at)))


def _question(choose: Random) -> RequestSpec:
    mood = choose.choices(list(MOODS), [weight for weight, _ in MOODS.values()])[0]
    words = " ".join(["word"] * choose.randrange(1, 40))
    return RequestSpec.of(f"A {mood} provider, please: {words}", role=ROLE, max_tokens=MAX_TOKENS)


def _context(choose: Random) -> RequestContext:
    who = "poor" if choose.random() < 0.2 else "ann"
    deadline = time.time() + choose.uniform(0.5, 1.5)
    return RequestContext(tenant_id=SCOPE, user_id=who, run_id=f"run-{choose.randrange(20)}", deadline=deadline)
