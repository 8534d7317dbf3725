"""Ends an attempt that takes too long."""

from __future__ import annotations

import asyncio

from llm_client.agent.middleware.chain import Next, ToolInvocation
from llm_client.errors import ToolFailed
from runtime_core.clock import Clock


class Timeout:
    """Each attempt gets the tool's `timeout_s`, or `seconds`, but never more than is left until the deadline.

    A blocking function cannot be stopped: it goes on in its thread, and its result is dropped.
    """

    def __init__(self, seconds: float = 30.0, *, clock: Clock) -> None:
        self._seconds = seconds
        self._clock = clock

    async def __call__(self, call: ToolInvocation, next: Next) -> str:
        allowed = self.allowed_s(call)
        scope = asyncio.timeout(allowed)
        try:
            async with scope:
                return await next(call)
        except TimeoutError as exc:
            if not scope.expired():
                raise
            message = f"The tool {call.tool.name} did not finish within {allowed:g} s."
            raise ToolFailed(message, tool=call.tool.name) from exc

    def allowed_s(self, call: ToolInvocation) -> float:
        """Seconds that an attempt at the call gets now."""
        allowed = self._seconds if call.tool.timeout_s is None else call.tool.timeout_s
        if call.context.deadline is None:
            return allowed
        return max(0.0, min(allowed, call.context.deadline - self._clock.now().timestamp()))
