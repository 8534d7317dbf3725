"""The response cache of an engine: this process's memory first, then what the log has kept."""

from __future__ import annotations

import logging
from collections.abc import Callable

from llm_client.attempts import Asked, Parts
from llm_client.cache import ResponseCache
from llm_client.results import CompletionResult, EmbeddingResult
from runtime_core.call_log.records import CallKind
from runtime_core.errors import StoreError
from runtime_core.frozen import changed

log = logging.getLogger(__name__)

Answer = CompletionResult | EmbeddingResult


def decode(kind: CallKind, text: str) -> Answer:
    """A kept answer, marked as one that cost nothing this time."""
    model: Callable[[str], Answer] = (
        EmbeddingResult.model_validate_json if kind is CallKind.EMBEDDING else CompletionResult.model_validate_json
    )
    return again(model(text))


def again(result: Answer) -> Answer:
    return changed(result, cached=True)


class CachedAnswers:
    """Looks for a call's answer before it is made, and keeps it afterwards. Without a cache it does nothing."""

    def __init__(self, parts: Parts, cache: ResponseCache | None) -> None:
        self._parts = parts
        self._cache = cache

    async def look(self, asked: Asked) -> Answer | None:
        if self._cache is None:
            return None
        scope_id = asked.context.tenant_id
        found = self._cache.get(scope_id, asked.request_hash)
        if found is not None:
            found = found if found.cached else again(found)
        elif self._cache.from_log:
            found = await self._look_in_log(asked, self._cache)
        if self._parts.hooks:
            name = "cache.miss" if found is None else "cache.hit"
            await self._parts.hooks.emit(name, asked.context, request_hash=asked.request_hash)
        return found

    async def keep(self, asked: Asked, answered_hash: str, result: Answer) -> None:
        """Not the answer to another request: a fallback's, or one that the guard had cut short."""
        if self._cache is None or answered_hash != asked.request_hash:
            return
        self._cache.put(asked.context.tenant_id, asked.request_hash, again(result))
        if self._parts.hooks:
            await self._parts.hooks.emit("cache.store", asked.context, request_hash=asked.request_hash)

    async def _look_in_log(self, asked: Asked, cache: ResponseCache) -> Answer | None:
        scope_id, now = asked.context.tenant_id, self._parts.log.now()
        try:
            kept = await self._parts.log.cached(scope_id, asked.request_hash, newer_than=now - cache.ttl_s)
        except StoreError as exc:  # only a cache: the call is made instead
            log.warning("The call log cannot be asked for a cached answer: %s", exc)
            return None
        if kept is None:
            return None
        return decode(asked.kind, kept.text)
