"""Python expressions as trees, written so that `ruff format` (120 columns) has nothing to change.

A tree goes on one line where it surely fits, else each of its parts on a line of its own. A comma behind the last part
makes that final for the formatter, too, so nothing here depends on how it measures a character.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

WIDTH = 120
STEP = "    "
_WIDEST = 3
"""Columns that a character which is not ASCII takes at most."""


@dataclass(frozen=True, slots=True)
class Atom:
    """Something that has no parts."""

    text: str


@dataclass(frozen=True, slots=True)
class Pieces:
    """A text of several lines: one literal as a whole, or one for each line."""

    whole: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """`items` between `opening` and `closing`, each with what stands in front of it, such as `name=`."""

    opening: str
    items: tuple[tuple[str, Tree], ...]
    closing: str


Tree = Atom | Pieces | Group


def call(name: str, /, *positional: Tree, **named: Tree) -> Group:
    """A call of `name`."""
    return Group(f"{name}(", (*(("", each) for each in positional), *((f"{key}=", v) for key, v in named.items())), ")")


def names_called(tree: Tree) -> Iterator[str]:
    """What a tree calls, wherever in it."""
    if isinstance(tree, Group):
        if name := tree.opening.rstrip("([{"):
            yield name
        for _, item in tree.items:
            yield from names_called(item)


def written(tree: Tree, *, indent: str = "", head: str = "", tail: str = "") -> Iterator[str]:
    """The lines of a tree behind `head` and in front of `tail`."""
    start = indent + head
    room = WIDTH - most_columns(start) - most_columns(tail)
    if (flat := _flat(tree, room)) is not None:
        yield f"{start}{flat}{tail}"
    elif isinstance(tree, Group) and tree.items:
        yield start + tree.opening
        yield from _parts(tree, indent + STEP)
        yield indent + tree.closing + tail
    elif isinstance(tree, Pieces) and len(start) + len(tail) + _fewest_columns(tree.whole) > WIDTH:
        yield f"{start}("
        yield from (f"{indent}{STEP}{line}" for line in tree.lines)
        yield f"{indent}){tail}"
    else:
        yield start + _whole(tree) + tail


def _parts(tree: Group, indent: str) -> Iterator[str]:
    match tree.items:
        case (("", Pieces() as only),) if len(indent) + _fewest_columns(only.whole) > WIDTH:
            yield from (f"{indent}{line}" for line in only.lines[:-1])
            yield f"{indent}{only.lines[-1]},"
        case _:
            for prefix, item in tree.items:
                yield from written(item, indent=indent, head=prefix, tail=",")


def most_columns(text: str) -> int:
    """No fewer columns than a text takes."""
    return len(text) if text.isascii() else sum(1 if char.isascii() else _WIDEST for char in text)


def _fewest_columns(text: str) -> int:
    return sum(char.isascii() for char in text)


def _whole(tree: Tree) -> str:
    match tree:
        case Atom():
            return tree.text
        case Pieces():
            return tree.whole
        case Group():
            return tree.opening + tree.closing


def _flat(tree: Tree, room: int) -> str | None:
    """The tree on one line; None where that takes more than `room` columns."""
    if not isinstance(tree, Group):
        whole = _whole(tree)
        return whole if most_columns(whole) <= room else None
    left = room - len(tree.opening) - len(tree.closing)
    parts: list[str] = []
    for prefix, item in tree.items:
        left -= most_columns(prefix) + (2 if parts else 0)
        flat = _flat(item, left) if left >= 0 else None
        if flat is None:
            return None
        left -= most_columns(flat)
        parts.append(prefix + flat)
    # A tuple of one needs its comma.
    comma = "," if tree.opening == "(" and len(parts) == 1 else ""
    return f"{tree.opening}{', '.join(parts)}{comma}{tree.closing}" if left >= len(comma) else None
