"""Patterns of names: globs as in fnmatchcase, never regular expressions from users."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable
from typing import Annotated

from pydantic import StringConstraints

Glob = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Matches = Callable[[str], object]

NOTHING = "(?!)"


def any_of(globs: Iterable[str]) -> Matches:
    """What is true for a name that matches one of the globs. They are translated once, into one expression."""
    return re.compile("|".join(map(fnmatch.translate, globs)) or NOTHING).match
