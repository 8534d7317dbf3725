"""Where ids come from, and the one legal form of each kind.

An id is refused, never repaired: two spellings of one scope would be two budgets (and one tenant).
"""

from __future__ import annotations

import itertools
import os
import re
import time
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from typing import Protocol

from agentflow.trace_id import TRACE_ID
from runtime_core.errors import IdentityError

MAX_ID_CHARS = 128

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class IdSource(Protocol):
    """New ids, unique for the life of the store that they end up in."""

    def new(self, prefix: str) -> str:
        """A fresh id of the form `<prefix>-<unique part>`."""
        ...


class RandomIds:
    """The millisecond and 80 random bits from the operating system; safe across processes and forks.

    Ids that are made together are stored together: rows of random ids would each touch a page of their own.
    """

    def new(self, prefix: str) -> str:
        return f"{prefix}-{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


class SequentialIds:
    """`run-1`, `run-2`, ... for tests, counted per prefix."""

    def __init__(self) -> None:
        self._counters: defaultdict[str, Iterator[int]] = defaultdict(lambda: itertools.count(1))

    def new(self, prefix: str) -> str:
        return f"{prefix}-{next(self._counters[prefix])}"


def new_trace_id() -> str:
    """A W3C trace id: 32 lower-case hex digits."""
    return os.urandom(16).hex()


def trace_id_or_new(offered: str | None) -> str:
    """The client's trace id if it is safe to log and store, else a new one."""
    if offered is not None and TRACE_ID.fullmatch(offered):
        return offered
    return new_trace_id()


def check_trace_id(value: str) -> str:
    """`value` if it is a trace id that may be logged and stored; raises IdentityError."""
    return _matching(TRACE_ID, value, what="trace id")


def check_name(value: str, *, what: str = "name") -> str:
    """`value` if it is safe as a name, a file name and a URL part; raises IdentityError."""
    return _matching(_NAME, value, what=what)


def check_id(value: str, *, what: str = "id") -> str:
    """`value` if it is the one spelling of a caller's id (scope, principal, session); raises IdentityError.

    Canonical means: 1 to 128 characters in Unicode NFC, no control, format or unassigned characters, no
    space but the plain one, and none of those at either end.
    """
    if not value or len(value) > MAX_ID_CHARS:
        problem = f"has {len(value)} characters, where 1 to {MAX_ID_CHARS} are allowed"
    elif value[0] == " " or value[-1] == " ":
        problem = "begins or ends with a space"
    elif value.isascii():
        problem = None if value.isprintable() else "contains a control character"
    else:
        problem = _unicode_problem(value)
    if problem is not None:
        raise IdentityError(f"The {what} {_shown(value)} {problem}.", what=what)
    return value


def check_scope_id(value: str) -> str:
    """`check_id` for a scope; raises IdentityError."""
    return check_id(value, what="scope id")


def _unicode_problem(value: str) -> str | None:
    for character in value:
        category = unicodedata.category(character)
        if category[0] == "C" or (category[0] == "Z" and character != " "):
            return f"contains {character!a}, which cannot be seen"
    return None if unicodedata.is_normalized("NFC", value) else "is not in Unicode normal form C"


def _matching(pattern: re.Pattern[str], value: str, *, what: str) -> str:
    if not pattern.fullmatch(value):
        raise IdentityError(f"The {what} {_shown(value)} does not match {pattern.pattern}.", what=what)
    return value


def _shown(value: str) -> str:
    """Hostile text as one short ASCII line, fit for a log."""
    return ascii(value if len(value) <= 40 else value[:40] + "...")
