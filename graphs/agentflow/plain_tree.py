"""A flow given as Python data: copied, and held to the same limits as a file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

from agentflow.scalars import MAX_DIGITS
from agentflow.tree import MAX_BYTES, Tree, TreeBuilder, TreeRejectedError


def read_plain(data: Any, *, file: str) -> Tree:
    """Copy JSON-like data. The tree has no places; its findings say what in the data is no JSON."""
    copier = _Copier(TreeBuilder(file, is_text=False))
    with suppress(TreeRejectedError):
        copier.copy(data)
    return Tree(file, copier.builder.data, None, tuple(copier.builder.findings))


class _Copier:
    """Recursive; the builder's limit on nesting bounds the recursion, and with it data that holds itself."""

    def __init__(self, builder: TreeBuilder) -> None:
        self.builder = builder
        self.size = 0

    def copy(self, value: Any) -> None:
        match value:
            case Mapping():
                self._members(cast(Mapping[Any, Any], value))
            case list() | tuple():
                self.builder.open([], 0, 0)
                for element in cast(list[Any], value):
                    self.copy(element)
                self.builder.close()
            case _:
                self.builder.scalar(self._scalar(value), 0, 0)

    def _members(self, data: Mapping[Any, Any]) -> None:
        self.builder.open({}, 0, 0)
        for key, value in data.items():
            self.builder.scalar(self._scalar(key), 0, 0)
            self.copy(value)
        self.builder.close()

    def _scalar(self, value: Any) -> Any:
        match value:
            case str():
                self._weigh(len(value))
                return str(value)
            case None | bool():
                return value
            case int() if abs(value) < 10**MAX_DIGITS:
                return int(value)
            case float() if math.isfinite(value):
                return float(value)
            case int() | float():
                self.builder.report("bad-number", "JSON cannot carry this number", "use a finite number", 0, 0)
            case _:
                message = f"a {type(value).__name__} is not JSON data"
                self.builder.report("not-json", message, "use text, numbers, booleans, lists and mappings", 0, 0)
        return None

    def _weigh(self, characters: int) -> None:
        self.size += characters
        if self.size > MAX_BYTES:
            message = f"the texts of the flow have more than {MAX_BYTES:,} characters"
            self.builder.reject("too-large", message, "split the flow", 0, 0)
