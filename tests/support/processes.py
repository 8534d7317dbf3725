"""What child processes a test has left."""

from __future__ import annotations

import psutil


def child_processes() -> set[int]:
    """The ids of every living or unreaped descendant of this process."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


def is_running(pid: int) -> bool:
    """Whether a process still does something: a zombie does not."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
