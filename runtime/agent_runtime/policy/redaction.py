"""Taking out what must not be written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent_runtime.policy.globs import Matches


def redact(value: Any, rules: Sequence[tuple[Matches, str]]) -> Any:
    """A copy of a JSON value with every value under a matching key replaced, at any depth."""
    if not rules:
        return value
    if isinstance(value, Mapping):
        return {key: _redacted(key, item, rules) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item, rules) for item in value]
    return value


def _redacted(key: Any, item: Any, rules: Sequence[tuple[Matches, str]]) -> Any:
    for matches, replacement in rules:
        if matches(str(key)):
            return replacement
    return redact(item, rules)
