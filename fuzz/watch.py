"""Sees what Python does while an input is only looked at: it may run, import and open nothing."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from agentflow.code_transform import FILENAME

_FORBIDDEN = ("exec", "import", "open")
_FORBIDDEN_FAMILIES = ("socket.", "subprocess.", "os.", "ctypes.", "shutil.", "urllib.")


class ForbiddenEffect(BaseException):
    """Not an Exception, so that nothing on the way swallows it."""


class _Watch:
    on = False
    installed = False


@contextmanager
def watched() -> Generator[None]:
    """Raises ForbiddenEffect inside for code that runs, modules that load, and files and sockets that open."""
    _Watch.on = True
    try:
        yield
    finally:
        _Watch.on = False


def install() -> None:
    """An audit hook cannot be removed again: for processes of their own."""
    if not _Watch.installed:
        _Watch.installed = True
        sys.addaudithook(_look)


def _look(event: str, args: tuple[Any, ...]) -> None:
    if not _Watch.on or not (event in _FORBIDDEN or event.startswith(_FORBIDDEN_FAMILIES)):
        return
    if event == "open" and args[0] in (FILENAME, "<unknown>"):
        return  # where a parser reports bad syntax, CPython looks for a file of the name it gave to the source
    _Watch.on = False
    raise ForbiddenEffect(f"{event} {ascii(args[:1])[:200]}")
