"""`?` parameters become the `$1`, `$2`, ... of PostgreSQL; what is quoted or a comment stays as it is."""

from __future__ import annotations

import itertools
import re

_TOKEN = re.compile(
    r"""
    (?P<other>
        '(?:[^']|'')*' | "(?:[^"]|"")*" | --[^\n]* | /\*.*?\*/ | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$
    )
    | \?
    """,
    re.VERBOSE | re.DOTALL,
)


def numbered(text: str) -> str:
    """The statement with its parameters numbered in order."""
    numbers = itertools.count(1)

    def number(token: re.Match[str]) -> str:
        return token["other"] or f"${next(numbers)}"

    return _TOKEN.sub(number, text)
