"""Answers that may be given again: the same scope, the same request, not too old.

The newest are in memory, bounded in number and size. Where the log keeps answers too, a miss asks the log, so a
restarted process and its neighbours share them.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from llm_client.results import CompletionResult, EmbeddingResult
from runtime_core.clock import Clock, SystemClock

Result = CompletionResult | EmbeddingResult

_OVERHEAD_BYTES = 1000
_FLOAT_BYTES = 32


@dataclass(frozen=True, slots=True)
class _Kept:
    result: Result
    expires_at: float
    size: int


class ResponseCache:
    """`ttl_s` is the age at which an answer is no longer given, in memory and from the log.

    `from_log=False` keeps it to this process. It is shared by the engines that it is given to.
    """

    def __init__(
        self,
        *,
        max_entries: int = 1024,
        max_bytes: int = 64 * 2**20,
        ttl_s: float = 300.0,
        from_log: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self.ttl_s = ttl_s
        self.from_log = from_log
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._clock = clock or SystemClock()
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, scope_id: str, request_hash: str) -> Result | None:
        key = (scope_id, request_hash)
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.expires_at <= self._clock.monotonic():
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return kept.result

    def put(self, scope_id: str, request_hash: str, result: Result) -> None:
        """Keep a new result. One that is larger than the whole cache is not kept."""
        key = (scope_id, request_hash)
        size = _size(result)
        if key in self._kept:
            self._drop(key)
        if size > self._max_bytes:
            return
        self._kept[key] = _Kept(result, self._clock.monotonic() + self.ttl_s, size)
        self._bytes += size
        while len(self._kept) > self._max_entries or self._bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def clear(self) -> None:
        self._kept.clear()
        self._bytes = 0

    def _drop(self, key: tuple[str, str]) -> None:
        self._bytes -= self._kept.pop(key).size


def _size(result: Result) -> int:
    """Bytes in memory, roughly."""
    if isinstance(result, EmbeddingResult):
        return _OVERHEAD_BYTES + _FLOAT_BYTES * sum(map(len, result.vectors))
    texts = [result.content, result.reasoning or "", *(call.arguments for call in result.tool_calls)]
    return _OVERHEAD_BYTES + 4 * sum(map(len, texts))
