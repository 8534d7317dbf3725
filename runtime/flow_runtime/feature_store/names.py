"""Names of groups, views, indexes and models, and the versions in them (IR.md Q27)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from flow_runtime.errors import OperationFailed

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)
_WITH_VERSION = re.compile(r"(.+)_v([0-9]{1,6})", re.ASCII)
LARGEST_VERSION = 999_999


@dataclass(frozen=True, slots=True)
class Named:
    """`shoppers_v2`: a name that can be part of a path, and a version from 1 on."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}_v{self.version}"


def named(name: Any, version: Any = None, *, what: str) -> Named:
    """A name with the version that is given, else that of its suffix `_v<digits>`, else 1. Raises OperationFailed."""
    if not isinstance(name, str):
        raise OperationFailed(f"{what} must be a name, as text")
    if version is None:
        if (parts := _WITH_VERSION.fullmatch(name)) is not None:
            name, version = parts[1], int(parts[2])
        else:
            version = 1
    if isinstance(version, bool) or not isinstance(version, int) or not 0 < version <= LARGEST_VERSION:
        raise OperationFailed(f"the version of {what} must be a whole number from 1 on")
    if not _NAME.fullmatch(name):
        message = f"{what} is no name: use lower-case letters, digits and _, such as shoppers_v2"
        raise OperationFailed(message)
    return Named(name, version)
