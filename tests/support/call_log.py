"""Attempts, endings and a log that repeats its calls, for the tests of the call log."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from runtime_core.call_log.keys import Claim, Completion, Done, Started
from runtime_core.call_log.log import CallLog
from runtime_core.call_log.records import Attempt, AttemptStatus, CallKind, Ending, Usage
from runtime_core.clock import Clock
from runtime_core.stores import Database, open_database
from runtime_core.stores.faults import FaultyDatabase
from support.stores import persist

SETTLED, RELEASED, UNKNOWN = AttemptStatus.SETTLED, AttemptStatus.RELEASED, AttemptStatus.UNKNOWN


class RepeatingLog:
    """A CallLog whose calls are repeated until the store answers, as a caller with stable ids does."""

    def __init__(self, log: CallLog) -> None:
        self._log = log

    def now(self) -> float:
        return self._log.now()

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._log, name)
        return lambda *args, **named: persist(lambda: method(*args, **named))


def open_log_database(url: str, *, fault_rate: float = 0.0) -> Database:
    """With a `fault_rate` it loses that share of calls and answers."""
    database = open_database(url, node_id="node-1")
    return FaultyDatabase(database, Random(7), rate=fault_rate) if fault_rate else database


async def prepared(database: Database, clock: Clock) -> CallLog:
    log = CallLog(database, clock=clock)
    await persist(log.prepare)
    return log


def attempt_of(log: CallLog | RepeatingLog, attempt_id: str = "attempt-1", **facts: Any) -> Attempt:
    """An attempt reserved now, with a lease of 60 seconds."""
    now = log.now()
    return Attempt.model_validate(
        {
            "scope_id": "tenant-1",
            "attempt_id": attempt_id,
            "call_id": "call-1",
            "number": 1,
            "kind": CallKind.CHAT,
            "role": "writer",
            "provider": "sim",
            "model": "sim-1",
            "request_hash": "request-1",
            "reserved_at": now,
            "lease_until": now + 60,
            **facts,
        }
    )


def settled(log: CallLog | RepeatingLog, answer: str | None = '"hello"', **facts: Any) -> Ending:
    usage = Usage(input=10, output=5, cached=2, reasoning=1)
    return Ending(
        **{"status": SETTLED, "ended_at": log.now(), "usage": usage, "cost_micro": 7, "answer": answer, **facts}
    )


def claim_of(owner: str, *, key: str = "key-1", scope_id: str = "tenant-1", **facts: Any) -> Claim:
    return Claim(scope_id, key, **{"request_hash": "request-1", "owner": owner, **facts})


async def execute_once(log: CallLog | RepeatingLog, claim: Claim, attempt_id: str) -> tuple[str, bool]:
    """What an executor does with a key: the answer, and whether this one made it."""
    while not isinstance(state := await log.begin(claim), Started):
        if isinstance(state, Done):
            return state.answer.text, False
        await asyncio.sleep(0.001)
    attempt = attempt_of(log, attempt_id, scope_id=claim.scope_id)
    await log.reserve(attempt)
    await asyncio.sleep(0)
    completion: Completion = await log.end_with_claim(attempt, settled(log, f'"by-{claim.owner}"'), claim)
    assert isinstance(completion.key, Done)
    return completion.key.answer.text, completion.key.answer.attempt_id == attempt_id


def say(*words: object) -> None:
    """A line on the standard output of a process that is about to be killed."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())
