"""Tells a callback what runs."""

from __future__ import annotations

import logging
from typing import Protocol

from llm_client.agent.events import ToolFinished, ToolStarted
from llm_client.agent.middleware.chain import Next, ToolInvocation
from llm_client.agent.results import ToolOutcome
from llm_client.errors import LLMClientError
from llm_client.spec import RequestContext
from runtime_core.clock import Clock

log = logging.getLogger(__name__)


class ToolEventSink(Protocol):
    """Is told of every call, without what was said. It must not block."""

    def __call__(self, event: ToolStarted | ToolFinished, context: RequestContext) -> None: ...


class Telemetry:
    """A start and an end for each call, also for one that is cancelled. A sink that raises is logged."""

    def __init__(self, sink: ToolEventSink | None = None, *, clock: Clock) -> None:
        self._sink = sink
        self._clock = clock

    async def __call__(self, call: ToolInvocation, next: Next) -> str:
        if self._sink is None:
            return await next(call)
        name, began = call.tool.name, self._clock.monotonic()
        self._emit(ToolStarted(call_id=call.call_id, name=name, turn=call.turn), call.context)
        outcome, error = ToolOutcome.FAILED, "cancelled"
        try:
            text = await next(call)
            outcome, error = ToolOutcome.DONE, None
        except LLMClientError as exc:
            outcome, error = ToolOutcome.of(exc), exc.code
            raise
        finally:
            finished = ToolFinished(
                call_id=call.call_id,
                name=name,
                turn=call.turn,
                outcome=outcome,
                error=error,
                duration_s=self._clock.monotonic() - began,
            )
            self._emit(finished, call.context)
        return text

    def _emit(self, event: ToolStarted | ToolFinished, context: RequestContext) -> None:
        if self._sink is None:
            return
        try:
            self._sink(event, context)
        except Exception:  # a foreign function at the agent's edge
            log.exception("The sink of tool events failed at %s; the call is not affected.", event.kind)
