"""A line in the log for each tool call."""

from __future__ import annotations

import logging

from llm_client.agent.middleware.chain import Next, ToolInvocation
from llm_client.errors import LLMClientError
from runtime_core.clock import Clock

log = logging.getLogger(__name__)


class Logging:
    """Names, ids, times and error codes. Values are secrets until somebody says otherwise: with `values` the
    arguments, and a failure's own text and traceback, are logged too."""

    def __init__(self, *, clock: Clock, values: bool = False) -> None:
        self._clock = clock
        self._values = values

    async def __call__(self, call: ToolInvocation, next: Next) -> str:
        began = self._clock.monotonic()
        try:
            text = await next(call)
        except LLMClientError as exc:
            cause = f" ({type(exc.__cause__).__name__})" if exc.__cause__ else ""
            self._write(logging.WARNING, call, f"{exc.code}{cause}", began, error=exc)
            raise
        self._write(logging.INFO, call, "done", began)
        return text

    def _write(
        self, level: int, call: ToolInvocation, ending: str, began: float, *, error: LLMClientError | None = None
    ) -> None:
        line = "tool %s: %s after %.3f s (request %s, trace %s)"
        facts = [
            call.tool.name,
            ending,
            self._clock.monotonic() - began,
            call.context.request_id,
            call.context.trace_id,
        ]
        if self._values:
            line, facts = f"{line} arguments %s", [*facts, dict(call.arguments)]
        log.log(level, line, *facts, exc_info=error if self._values else None)
