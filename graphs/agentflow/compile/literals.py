"""JSON values as Python literals: the one way, by `repr`, for a text of a flow into generated code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from agentflow.compile.layout import Atom, Group, Pieces, Tree

MAX_PIECES = 4_000
"""Lines of one text that get a literal each."""


def literal(value: Any) -> Tree:
    """A JSON value; tuples come out as lists."""
    match value:
        case str():
            return text(value)
        case None | bool() | int() | float():
            return Atom(repr(value))
        case Mapping():
            items = cast("Mapping[str, Any]", value).items()
            return Group("{", tuple((f"{quoted(str(key))}: ", literal(each)) for key, each in items), "}")
        case Sequence():
            return Group("[", tuple(("", literal(each)) for each in cast("Sequence[Any]", value)), "]")
        case _:
            raise TypeError(f"{type(value).__name__} is no JSON value")


def text(value: str) -> Tree:
    """A text, with a literal for each of its lines where it has several and is long."""
    lines = value.split("\n")
    if len(lines) == 1 or len(lines) > MAX_PIECES:
        return Atom(quoted(value))
    pieces = [quoted(f"{line}\n") for line in lines[:-1]]
    if lines[-1]:
        pieces.append(quoted(lines[-1]))
    return Pieces(quoted(value), tuple(pieces)) if len(pieces) > 1 else Atom(quoted(value))


def quoted(value: str) -> str:
    """`repr` of a text, in the quotes that a formatter would choose: double ones, unless single ones escape less."""
    made = repr(value)
    if made[0] == '"' or value.count('"') > value.count("'"):
        return made
    # repr chose single quotes, so it escaped those alone.
    inside = made[1:-1].replace("\\'", "'").replace('"', '\\"')
    return f'"{inside}"'
