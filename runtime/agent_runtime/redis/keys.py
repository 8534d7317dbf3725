"""How a record of a scope is named in Redis."""

from __future__ import annotations


def place(scope_id: str, name: str) -> str:
    """The length keeps two scopes apart whatever is in their names."""
    return f"{len(scope_id)}:{scope_id}:{name}"


def scope_of(place: str) -> tuple[str, str]:
    """The scope and the name of a place."""
    length, _, rest = place.partition(":")
    return rest[: int(length)], rest[int(length) + 1 :]
