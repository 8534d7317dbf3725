"""Tries a failed call again, where that can do no harm."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from llm_client.agent.middleware.chain import Next, ToolInvocation
from llm_client.errors import ToolFailed
from llm_client.retry import RetryPolicy
from runtime_core.clock import Clock

TOOL_RETRIES = RetryPolicy(attempts=3, backoff_s=0.2, max_backoff_s=5.0)


class Retry:
    """Only ToolFailed is tried again, and only for a tool that is idempotent or has no side effects."""

    def __init__(
        self, policy: RetryPolicy = TOOL_RETRIES, *, clock: Clock, draw: Callable[[], float] = random.random
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._draw = draw

    async def __call__(self, call: ToolInvocation, next: Next) -> str:
        while True:
            try:
                return await next(call)
            except ToolFailed:
                if not call.tool.repeatable or call.attempt >= self._policy.attempts:
                    raise
            await self._clock.sleep(self._policy.pause_s(call.attempt, retry_after=None, draw=self._draw))
            call = replace(call, attempt=call.attempt + 1)
