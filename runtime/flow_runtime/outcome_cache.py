"""Outcomes of nodes, kept for a while in one process: bounded in number and size, the least used goes first.

Outputs are kept as JSON text, so that no two runs share an object; what JSON does not carry unchanged is not kept.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from runtime_core.clock import Clock
from runtime_core.outcome import NodeOutcome

MAX_ENTRIES = 4096
MAX_CHARS = 64 * 1024 * 1024
LARGEST_SHARE = 8
"""One entry may take at most this part of the whole size."""


class CacheKey(NamedTuple):
    """`scope_id` keeps tenants apart; `node` is the node's fingerprint, `inputs` stands for what it was given."""

    scope_id: str
    node: str
    inputs: str


@dataclass(frozen=True, slots=True)
class _Entry:
    text: str
    until_s: float


@dataclass(frozen=True, slots=True)
class _Landed:
    """What the callers who waited for another's run are told: its outputs, or whether to wait for the next one."""

    text: str | None
    was_cut: bool


class OutcomeCache:
    """Shared by the nodes of a process."""

    def __init__(self, *, max_entries: int = MAX_ENTRIES, max_chars: int = MAX_CHARS) -> None:
        self._max_entries = max_entries
        self._max_chars = max_chars
        self._entries: OrderedDict[CacheKey, _Entry] = OrderedDict()
        self._chars = 0
        self._flights: dict[CacheKey, asyncio.Future[_Landed]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    async def through(
        self, key: CacheKey, run: Callable[[], Awaitable[NodeOutcome]], *, ttl_s: float, clock: Clock
    ) -> NodeOutcome:
        """The kept outcome (with 0 attempts), or that of `run`, kept for `ttl_s` seconds if it succeeded.

        Of equal calls at the same time one runs and the others wait for its success. A failure is nobody else's:
        they then run on their own, all at once. When the caller who runs is cancelled, one of them takes over.
        """
        while (text := self._fresh(key, clock)) is None:
            flight = self._flights.get(key)
            if flight is None:
                return await self._lead(key, run, ttl_s, clock)
            landed = await asyncio.shield(flight)
            if landed.text is not None:
                text = landed.text
                break
            if not landed.was_cut:
                return await run()
        return NodeOutcome(outputs=json.loads(text), attempts=0)

    async def _lead(
        self, key: CacheKey, run: Callable[[], Awaitable[NodeOutcome]], ttl_s: float, clock: Clock
    ) -> NodeOutcome:
        flight = self._flights[key] = asyncio.get_running_loop().create_future()
        landed = _Landed(text=None, was_cut=True)
        try:
            outcome = await run()
            text = json_text(outcome.outputs) if outcome.failure is None else None
            if text is not None:
                self._keep(key, _Entry(text, clock.monotonic() + ttl_s))
            landed = _Landed(text, was_cut=False)
            return outcome
        finally:
            del self._flights[key]
            flight.set_result(landed)

    def _fresh(self, key: CacheKey, clock: Clock) -> str | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.until_s <= clock.monotonic():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.text

    def _keep(self, key: CacheKey, entry: _Entry) -> None:
        if len(entry.text) * LARGEST_SHARE > self._max_chars:
            return
        if key in self._entries:
            self._drop(key)
        self._entries[key] = entry
        self._chars += len(entry.text)
        while len(self._entries) > self._max_entries or self._chars > self._max_chars:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: CacheKey) -> None:
        self._chars -= len(self._entries.pop(key).text)


def json_text(value: Any) -> str | None:
    """A value as JSON in one fixed form; None when JSON would change it, as with tuples and keys that are numbers."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return text if json.loads(text) == value else None
    except (TypeError, ValueError, RecursionError):
        return None
