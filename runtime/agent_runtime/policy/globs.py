"""Patterns of names: globs as in fnmatchcase, never regular expressions from users."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable
from typing import Annotated

from pydantic import StringConstraints

Glob = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Matches = Callable[[str], bool]


def any_of(globs: Iterable[str]) -> Matches:
    """Whether a name matches one of the globs, translated once."""
    found = [re.compile(fnmatch.translate(glob)).match for glob in globs]
    if len(found) == 1:
        match = found[0]
        return lambda name: match(name) is not None
    return lambda name: any(match(name) is not None for match in found)
