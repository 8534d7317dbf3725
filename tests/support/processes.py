"""What child processes say, and what a test has left of them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import defaultdict
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

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


async def lines_of(module: str, *arguments: object) -> dict[str, list[list[str]]]:
    """What a program of `support` and its processes said, by the first word of each line."""
    path = filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"support.{module}", *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    said: dict[str, list[list[str]]] = defaultdict(list)
    for line in output.decode().splitlines():
        word, *rest = line.split(" ")
        said[word].append(rest)
    return said


def forked(work: Coroutine[Any, Any, None]) -> int:
    """The id of a child process that does `work` and ends; it exits with 1 if that raises."""
    if (child := os.fork()) != 0:
        work.close()
        return child
    status = 1
    try:
        asyncio.run(work)
        status = 0
    finally:
        os._exit(status)


def is_running(pid: int) -> bool:
    """Whether a process still does something: a zombie does not."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
