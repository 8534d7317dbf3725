"""Who is next, where several scopes share one server: a queue for each scope, served in turn.

Pure: tickets come and go, nothing here waits. `turns` is its asyncio edge.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Ticket = TypeVar("Ticket")


class ScopeFull(Exception):
    """A scope has as many tickets waiting as it may."""


class FairQueue(Generic[Ticket]):
    """Starts at most `per_scope` tickets of a scope at a time, and at most `total` of all where that is given.

    Others wait, at most `waiting` of each scope, in the order in which they came. A place that gets free goes to the
    scopes in turn, whatever they have waiting. Every operation takes constant time. Tickets are unique.
    """

    def __init__(self, *, per_scope: int, waiting: int, total: int | None = None) -> None:
        self._per_scope = per_scope
        self._most_waiting = waiting
        self._total = total
        self._running: dict[str, int] = {}
        self._started = 0
        # As ordered sets: tickets leave from the middle, too.
        self._waiting: dict[str, OrderedDict[Ticket, None]] = {}
        self._next: OrderedDict[str, None] = OrderedDict()

    def enter(self, scope_id: str, ticket: Ticket) -> bool:
        """Whether the ticket starts now; else it waits. Raises ScopeFull where it may not wait either."""
        if self._may_start(scope_id) and self._has_room():
            self._start(scope_id)
            return True
        if len(self._waiting.get(scope_id, ())) >= self._most_waiting:
            raise ScopeFull
        self._waiting.setdefault(scope_id, OrderedDict())[ticket] = None
        self._line_up(scope_id)
        return False

    def leave(self, scope_id: str) -> Ticket | None:
        """A started ticket of the scope is done; the one that starts in its place, if there is one."""
        self._started -= 1
        if left := self._running[scope_id] - 1:
            self._running[scope_id] = left
        else:
            del self._running[scope_id]
        self._line_up(scope_id)
        if not self._next or not self._has_room():
            return None
        chosen = next(iter(self._next))
        del self._next[chosen]
        ticket = next(iter(self._waiting[chosen]))
        self._forget(chosen, ticket)
        self._start(chosen)
        self._line_up(chosen)
        return ticket

    def give_up(self, scope_id: str, ticket: Ticket) -> bool:
        """The ticket waits no longer; False where it did not wait (it was started, or never came)."""
        if ticket not in self._waiting.get(scope_id, ()):
            return False
        self._forget(scope_id, ticket)
        if scope_id not in self._waiting:
            self._next.pop(scope_id, None)
        return True

    @property
    def is_empty(self) -> bool:
        return not (self._started or self._running or self._waiting or self._next)

    def _may_start(self, scope_id: str) -> bool:
        return self._running.get(scope_id, 0) < self._per_scope

    def _has_room(self) -> bool:
        return self._total is None or self._started < self._total

    def _start(self, scope_id: str) -> None:
        self._started += 1
        self._running[scope_id] = self._running.get(scope_id, 0) + 1

    def _line_up(self, scope_id: str) -> None:
        """Put the scope at the end of the line, if it is not in it and something of it could start."""
        if scope_id in self._waiting and self._may_start(scope_id):
            self._next.setdefault(scope_id)

    def _forget(self, scope_id: str, ticket: Ticket) -> None:
        tickets = self._waiting[scope_id]
        del tickets[ticket]
        if not tickets:
            del self._waiting[scope_id]
