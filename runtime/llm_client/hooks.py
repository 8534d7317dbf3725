"""Who watches an engine: functions that are told what happens, and change nothing.

    idempotency.start | hit | conflict | complete | fail
    cache.hit | miss | store
    attempt.start | settled | released | unknown | retry | fallback
    breaker.open | close | refused

A hook that raises is logged; the call goes on. Hooks may be async; they are awaited where the call is.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llm_client.spec import RequestContext

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HookEvent:
    """`facts` never hold what was said: ids, names, counts and error codes only."""

    name: str
    context: RequestContext
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])


Hook = Callable[[HookEvent], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class Hooks:
    hooks: Sequence[Hook] = ()

    def __bool__(self) -> bool:
        return bool(self.hooks)

    async def emit(self, name: str, context: RequestContext, **facts: Any) -> None:
        for hook in self.hooks:
            try:
                waiting = hook(HookEvent(name, context, facts))
                if inspect.isawaitable(waiting):
                    await waiting
            except Exception:  # a foreign function at the engine's edge
                log.exception("A hook failed at %s; the call is not affected.", name)
