"""Ends a process with everything that it started."""

from __future__ import annotations

import os
import signal
from contextlib import suppress


def stop_group(leader: int) -> None:
    """SIGSTOP a process group: at once none of it does anything more, until `kill_tree` ends it."""
    _signal_group(leader, signal.SIGSTOP)


def kill_tree(leader: int) -> None:
    """SIGKILL a session's leader, its process group, and on Linux also descendants that left the group.

    The leader must be a child that nobody has waited for yet, so that its id cannot mean another process.
    Everything is stopped first: a stopped process starts no further ones while we look. Reads all of /proc,
    which takes milliseconds.
    """
    stop_group(leader)
    stopped: set[int] = set()
    while found := _descendants(leader) - stopped:
        for pid in found:
            _signal(pid, signal.SIGSTOP)
        stopped |= found
    _signal_group(leader, signal.SIGKILL)
    for pid in stopped:
        _signal(pid, signal.SIGKILL)


def _descendants(ancestor: int) -> set[int]:
    """Empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    with suppress(FileNotFoundError):
        for name in os.listdir("/proc"):
            if name.isdecimal() and (parent := _parent_of(name)) is not None:
                children.setdefault(parent, []).append(int(name))
    found: set[int] = set()
    unseen = children.get(ancestor, [])
    while unseen:
        pid = unseen.pop()
        found.add(pid)
        unseen.extend(children.get(pid, ()))
    return found


def _parent_of(pid: str) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # pid (name) state parent ...: the name may hold spaces and brackets
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None  # it ended meanwhile


def _signal_group(leader: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
