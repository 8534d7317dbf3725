"""The attempts of a node: each with its own timeout, a pause between them (IR.md Q16, Q17, Q21)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from agentflow.errors import FlowError
from agentflow.failure import Failure
from agentflow.ir import FailureType
from agentflow.settings import NodeSettings
from flow_runtime.attempt_time import AttemptTime
from flow_runtime.errors import (
    CallNotAllowed,
    LedgerUnavailable,
    ModelFailed,
    NodeTimeout,
    OutputInvalid,
    RowNotFound,
    SubflowFailed,
)
from runtime_core.backoff import exponential_s
from runtime_core.clock import Clock
from runtime_core.errors import AgentflowError

logger = logging.getLogger(__name__)

MAX_RETRY_AFTER_S = 60.0
"""What a run without a deadline waits at most because a provider asked for it; then the failure goes out with it."""


@dataclass(frozen=True, slots=True)
class Attempted:
    """What came of the attempts: a value, or the last failure."""

    value: Any = None
    failure: Failure | None = None
    attempts: int = 0


async def attempt(
    body: Callable[[float], Awaitable[Any]],
    settings: NodeSettings,
    *,
    clock: Clock,
    draw: Callable[[], float],
    remaining_s: Callable[[], float | None],
) -> Attempted:
    """Call `body` up to `settings.attempts` times; it is given the seconds that this attempt may take.

    A provider's Retry-After is waited for.
    No attempt outlasts the request: `remaining_s` cuts the timeout, and once it is spent nothing more is tried.
    `draw` gives numbers from 0 up to 1, for the jitter of the pauses.
    """
    number = 1
    while True:
        last = await once(body, settings, number=number, remaining_s=remaining_s)
        if last.failure is None or number >= settings.attempts or not last.failure.is_of(settings.retry_on):
            return last
        pause = pause_s(settings, number, draw)
        left = remaining_s()
        if (wanted := last.failure.retry_after) is not None:
            if left is None and wanted > MAX_RETRY_AFTER_S:
                return last
            pause = max(pause, wanted)
        if left is not None and left <= pause:
            return last
        await clock.sleep(pause)
        number += 1


def pause_s(settings: NodeSettings, failed: int, draw: Callable[[], float]) -> float:
    """The seconds to wait after the `failed`th attempt: twice the last pause each time if the backoff is exponential.

    Jitter is full jitter, anything from nothing to the whole pause: callers that failed together come back apart.
    """
    pause = settings.backoff_s
    if settings.backoff == "exponential":
        pause = exponential_s(pause, failed)
    if settings.max_backoff_s is not None:
        pause = min(pause, settings.max_backoff_s)
    return pause * draw() if settings.jitter else pause


async def once(
    body: Callable[[float], Awaitable[Any]],
    settings: NodeSettings,
    *,
    number: int,
    remaining_s: Callable[[], float | None],
) -> Attempted:
    """One attempt, the `number`th of its node."""
    left = remaining_s()
    timeout_s = settings.timeout_s if left is None else max(min(settings.timeout_s, left), 0)
    bound = asyncio.timeout(timeout_s)
    try:
        async with bound:
            with AttemptTime(bound):
                value = await body(timeout_s)
    except TimeoutError as exc:
        reason = f"it took longer than {timeout_s:g} s" if bound.expired() else str(exc) or "it timed out"
        return Attempted(failure=Failure(reason=reason, kind="timeout", attempts=number), attempts=number)
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is None or task.cancelling():
            raise
        failure = Failure(reason="something that it waited for was cancelled", kind="error", attempts=number)
        return Attempted(failure=failure, attempts=number)
    except (AgentflowError, FlowError) as exc:
        failure = Failure(
            reason=str(exc),
            kind=failure_kind(exc),
            attempts=number,
            retry_after=exc.retry_after if isinstance(exc, ModelFailed | CallNotAllowed | SubflowFailed) else None,
            refused=exc.refused if isinstance(exc, CallNotAllowed | SubflowFailed) else None,
        )
        return Attempted(failure=failure, attempts=number)
    except Exception as exc:
        logger.exception("a node failed in a way that nobody foresaw")
        failure = Failure(reason=f"{type(exc).__name__}: {exc}", kind="error", attempts=number)
        return Attempted(failure=failure, attempts=number)
    return Attempted(value=value, attempts=number)


def failure_kind(error: Exception) -> FailureType:
    """What kind of failure an error makes; `error` is all that is none of the others."""
    if isinstance(error, CallNotAllowed | SubflowFailed):
        return error.kind
    if isinstance(error, NodeTimeout):
        return "timeout"
    if isinstance(error, RowNotFound):
        return "not_found"
    if isinstance(error, LedgerUnavailable):
        return "unavailable"
    return "validation_fail" if isinstance(error, OutputInvalid) else "error"
