"""Plain data with the place of every value: the limits and rules that hold for YAML and JSON alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

from agentflow.findings import MAX_FINDINGS, Finding, PathStep, Place

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
MAX_NODES = 100_000


Spot: TypeAlias = "tuple[int, int, dict[str, Spot] | list[Spot] | None]"
"""Line and column, from 0, of a key with its value or of an element of a list; then the spots inside it.

Plain tuples: there is one per value, and the garbage collector need not look at them.
"""


Graft: TypeAlias = "tuple[tuple[PathStep, ...], Tree]"
"""A path, and the tree of another file whose data stands there."""


@dataclass(frozen=True, slots=True)
class Tree:
    """`data` counts only when there are no `findings`. `root` is None for data that never was text."""

    file: str
    data: Any = None
    root: Spot | None = None
    findings: tuple[Finding, ...] = ()
    grafts: tuple[Graft, ...] = ()

    def place(self, path: Sequence[PathStep]) -> Place | None:
        """The place of `path`, or of the nearest thing around it that is in the text."""
        for prefix, inner_tree in self.grafts:
            if len(path) > len(prefix) and tuple(path[: len(prefix)]) == prefix:
                return inner_tree.place(path[len(prefix) :])
        if self.root is None:
            return None
        spot = self.root
        for step in path:
            inner = spot[2]
            if isinstance(inner, dict) and step in inner:
                spot = inner[str(step)]
            elif isinstance(inner, list) and isinstance(step, int) and step < len(inner):
                spot = inner[step]
            else:
                break
        return Place(self.file, spot[0] + 1, spot[1] + 1)


class TreeRejectedError(Exception):
    """Reading cannot go on; the builder's findings say why."""


@dataclass(slots=True)
class _Frame:
    """An open mapping or list; `key` is the key that waits for its value."""

    data: dict[str, Any] | list[Any]
    spots: dict[str, Spot] | list[Spot]
    line: int
    column: int
    key: str | None = None
    key_line: int = 0
    key_column: int = 0


@dataclass(slots=True)
class TreeBuilder:
    """Takes values in the order in which they stand in the text. Positions count from 0; data has none."""

    file: str
    is_text: bool = True
    data: Any = None
    root: Spot | None = None
    findings: list[Finding] = field(default_factory=list[Finding])
    _stack: list[_Frame] = field(default_factory=list[_Frame])
    _nodes: int = 0

    def open(self, data: dict[str, Any] | list[Any], line: int, column: int) -> None:
        """A mapping or list begins."""
        if self.expects_key:
            self.reject("bad-key", "a key must be text, not a list or a mapping", "", line, column)
        self._count(line, column)
        if len(self._stack) >= MAX_DEPTH:
            message = f"the file is nested more than {MAX_DEPTH} levels deep"
            self.reject("too-deep", message, "flatten it; no flow needs that", line, column)
        spots: dict[str, Spot] | list[Spot] = {} if isinstance(data, dict) else []
        self._stack.append(_Frame(data, spots, line, column))

    def close(self) -> None:
        """The innermost mapping or list ends."""
        frame = self._stack.pop()
        self._put(frame.data, frame.line, frame.column, frame.spots)

    def scalar(self, value: Any, line: int, column: int) -> None:
        """A text, number, boolean or null: a key where one is due, else a value."""
        self._count(line, column)
        if isinstance(value, str) and not value.isascii() and has_surrogate(value):
            hint = "write the character itself"
            self.report("not-utf-8", "half of a surrogate pair is not text", hint, line, column)
        if self.expects_key:
            self._key(value, line, column)
        else:
            self._put(value, line, column, None)

    @property
    def expects_key(self) -> bool:
        """Whether the next value is a key of the innermost mapping."""
        if not self._stack:
            return False
        frame = self._stack[-1]
        return frame.key is None and type(frame.data) is dict

    def report(self, code: str, message: str, hint: str, line: int, column: int) -> None:
        """Note a finding here and go on, until there are too many."""
        place = Place(self.file, line + 1, column + 1) if self.is_text else None
        self.findings.append(Finding(code=code, message=message, hint=hint, path=self._path(), place=place))
        if len(self.findings) >= MAX_FINDINGS:
            raise TreeRejectedError

    def reject(self, code: str, message: str, hint: str, line: int, column: int) -> NoReturn:
        """Note a finding that ends the reading."""
        self.report(code, message, hint, line, column)
        raise TreeRejectedError

    def tree(self) -> Tree:
        """What was read so far. An empty text has its place at the beginning."""
        return Tree(self.file, self.data, self.root or (0, 0, None), tuple(self.findings))

    def _key(self, value: Any, line: int, column: int) -> None:
        frame = self._stack[-1]
        if not isinstance(value, str):
            text = "null" if value is None else str(value).lower()
            self.report("bad-key", f"the key {text} is not text", f'write "{text}" in quotes', line, column)
            value = text
        if value in frame.data:
            message = f"the key '{shortened(value)}' stands here twice"
            hint = "keep one"
            if self.is_text and isinstance(frame.spots, dict):
                hint = f"it is also on line {frame.spots[value][0] + 1}; keep one"
            self.report("duplicate-key", message, hint, line, column)
        frame.key, frame.key_line, frame.key_column = value, line, column

    def _put(self, value: Any, line: int, column: int, inner: dict[str, Spot] | list[Spot] | None) -> None:
        if not self._stack:
            self.data, self.root = value, (line, column, inner)
            return
        frame = self._stack[-1]
        if isinstance(frame.data, list):
            assert isinstance(frame.spots, list)
            frame.data.append(value)
            frame.spots.append((line, column, inner))
        else:
            assert isinstance(frame.spots, dict) and frame.key is not None
            frame.data[frame.key] = value
            frame.spots[frame.key] = (frame.key_line, frame.key_column, inner)
            frame.key = None

    def _count(self, line: int, column: int) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            message = f"the file has more than {MAX_NODES:,} keys and values"
            self.reject("too-many-nodes", message, "split the flow", line, column)

    def _path(self) -> tuple[PathStep, ...]:
        steps: list[PathStep] = []
        for frame in self._stack:
            if isinstance(frame.data, list):
                steps.append(len(frame.data))
            elif frame.key is not None:
                steps.append(frame.key)
        return tuple(steps)


def has_surrogate(text: str) -> bool:
    """Whether `text` holds a code point that no encoding can store."""
    return any("\ud800" <= char <= "\udfff" for char in text)


def shortened(value: object, limit: int = 60) -> str:
    """`value` as text for a message, cut to `limit` characters and kept on one line."""
    text = str(value)
    text = text if len(text) <= limit else f"{text[:limit]}..."
    return text.encode("unicode_escape").decode() if not text.isprintable() else text
