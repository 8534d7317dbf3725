"""What child processes a test has left."""

from __future__ import annotations

from contextlib import suppress

import psutil

_SERVERS = frozenset({"postgres", "redis-server"})


def child_processes() -> set[int]:
    """The ids of every living or unreaped descendant of this process, the session's database servers excepted."""
    found: set[int] = set()
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if child.name() not in _SERVERS:
                found.add(child.pid)
    return found


def is_running(pid: int) -> bool:
    """Whether a process still does something: a zombie does not."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
