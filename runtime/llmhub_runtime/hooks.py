"""The hooks around a call: copies go in, nothing comes back but a refusal.

A before-hook that raises aborts the call with its own error; the after-hook is not called then. An after-hook
that raises is logged and changes nothing. Hooks may be async functions; they run on the loop that makes the
call.
"""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from runtime_core.clock import Clock, SystemClock

from .errors import StreamAbandonedError
from .models import CallContext, CallResult, ResolvedCall
from .streams import StreamTally

log = logging.getLogger(__name__)

BeforeHook = Callable[[CallContext], Awaitable[None] | None]
AfterHook = Callable[[CallResult], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class Hooks:
    before: BeforeHook | None = None
    after: AfterHook | None = None
    clock: Clock = field(default_factory=SystemClock)


class ObservedCall:
    """`async with` around one call, so that the after-hook runs exactly once however the call ends.

    The body sets `response`, or feeds `tally` when the answer is a stream.
    """

    def __init__(
        self,
        hooks: Hooks,
        call: ResolvedCall,
        *,
        messages: Sequence[Mapping[str, Any]] | None = None,
        inputs: str | Sequence[str] | None = None,
        tally: StreamTally | None = None,
    ) -> None:
        self._hooks = hooks
        self._call = call
        self._messages = messages
        self._inputs = inputs
        self._tally = tally
        self._started = 0.0
        self.response: Any = None

    async def __aenter__(self) -> ObservedCall:
        if self._hooks.before is not None:
            await _run(self._hooks.before, self._context())
        self._started = self._hooks.clock.monotonic()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._hooks.after is None:
            return
        duration_ms = (self._hooks.clock.monotonic() - self._started) * 1000
        try:
            await _run(self._hooks.after, self._result(error, duration_ms))
        except Exception:
            log.exception("The after-hook failed for role '%s'; the call is not affected.", self._call.role)

    def _context(self) -> CallContext:
        call = self._call
        return CallContext(
            role=call.role,
            provider=call.provider,
            model=call.model,
            mode=call.mode,
            params=copy.deepcopy(call.params),
            messages=copy.deepcopy(self._messages),
            input=copy.deepcopy(self._inputs),
            used_default=call.used_default,
        )

    def _result(self, error: BaseException | None, duration_ms: float) -> CallResult:
        call = self._call
        usage, finish_reason = self._usage_and_finish()
        if isinstance(error, GeneratorExit):
            error = None if self._tally and self._tally.is_complete else _abandoned()
        return CallResult(
            role=call.role,
            provider=call.provider,
            model=call.model,
            mode=call.mode,
            duration_ms=duration_ms,
            success=error is None,
            error=error,
            response=copy.deepcopy(self.response),
            usage=usage.model_dump(exclude_none=True) if usage is not None else None,
            finish_reason=finish_reason,
            streamed=self._tally is not None,
        )

    def _usage_and_finish(self) -> tuple[Any, str | None]:
        if self._tally is not None:
            return self._tally.usage, self._tally.finish_reason
        choices = getattr(self.response, "choices", None)
        finish_reason = choices[0].finish_reason if choices else None
        return getattr(self.response, "usage", None), finish_reason


def _abandoned() -> StreamAbandonedError:
    return StreamAbandonedError("The consumer stopped reading before the end of the stream.")


async def _run(hook: Callable[[Any], Awaitable[None] | None], seen: CallContext | CallResult) -> None:
    waiting = hook(seen)
    if inspect.isawaitable(waiting):
        await waiting
