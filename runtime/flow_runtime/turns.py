"""What an attempt at a node adds to the conversation, from wherever below the node a model is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from runtime_core.sessions.records import SessionRecord

# Prompts lie at different depths below a node, and what they return is their answer.
_said: ContextVar[list[SessionRecord] | None] = ContextVar("agentflow_turns", default=None)


@contextmanager
def collecting() -> Iterator[list[SessionRecord]]:
    """What `remember` is told in this block, and in the tasks that it starts."""
    said: list[SessionRecord] = []
    token = _said.set(said)
    try:
        yield said
    finally:
        _said.reset(token)


def remember(records: Iterable[SessionRecord]) -> None:
    """These turns are part of the running attempt, and count if it succeeds. Outside of a node nobody listens."""
    if (said := _said.get()) is not None:
        said.extend(records)
