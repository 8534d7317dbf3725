"""At most so many of a thing in each scope, without counting them for each new one."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

# So many processes may each use up what they last saw free without going beyond the limit together.
_PROCESSES = 16
_FRESH_S = 10.0
_FULL_S = 1.0
_MOST_SCOPES = 10_000

Count = Callable[[], Awaitable[int]]


@dataclass(slots=True)
class _Room:
    """What a scope may add before somebody looks again, which is at the latest at `until`; `adding` are at it now."""

    left: int = 0
    until: float = float("-inf")
    adding: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)


class Quota:
    """`limit` things in a scope. It belongs to one event loop.

    A process looks how many there are, and lets a sixteenth of what is free through before it looks again: alone it
    never exceeds the limit, and several exceed it by no more than what they are adding at that moment. A scope that
    was found full is believed to be so for a second.
    """

    def __init__(self, limit: int, *, monotonic: Callable[[], float]) -> None:
        self.limit = limit
        self._monotonic = monotonic
        self._rooms: OrderedDict[str, _Room] = OrderedDict()

    @asynccontextmanager
    async def place(self, scope_id: str, count: Count) -> AsyncGenerator[bool]:
        """Whether the block may add a thing; `count` tells how many the scope has. Raises what `count` raises."""
        room = self._room(scope_id)
        while not self._is_known(room):
            async with room.looking:
                if not self._is_known(room):
                    await self._look(room, count)
        if not room.left:
            yield False
            return
        room.left -= 1
        if not room.left:
            room.until = float("-inf")
        room.adding += 1
        room.idle.clear()
        try:
            yield True
        finally:
            room.adding -= 1
            if not room.adding:
                room.idle.set()

    def _room(self, scope_id: str) -> _Room:
        room = self._rooms.get(scope_id)
        if room is None:
            room = self._rooms[scope_id] = _Room()
        self._rooms.move_to_end(scope_id)
        if len(self._rooms) > _MOST_SCOPES:
            self._rooms.popitem(last=False)
        return room

    def _is_known(self, room: _Room) -> bool:
        return self._monotonic() < room.until

    async def _look(self, room: _Room, count: Count) -> None:
        while room.adding:  # what is being added may be counted or not
            await room.idle.wait()
        free = self.limit - await count()
        room.left = max(1, free // _PROCESSES) if free > 0 else 0
        room.until = self._monotonic() + (_FRESH_S if room.left else _FULL_S)
