"""A text that matches a regular expression, built from the expression itself.

Never runs the expression, so no pattern can hang it. Understands what JSON Schemas usually say: literals,
classes, groups, alternatives, quantifiers and anchors. Anything else (look-around, back references,
`\\b`, Unicode properties) is answered with None.
"""

from __future__ import annotations

import random
import re
import string
from dataclasses import dataclass

_MAX_STRETCH = 4096
_TRIES = 8
_PRINTABLE = "".join(map(chr, range(32, 127)))
_WORD = string.ascii_lowercase + string.digits + "_" + string.ascii_uppercase
_CLASSES = {"d": string.digits, "w": _WORD, "s": " "}
_CONTROL = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
_COUNT = re.compile(r"\{(\d{1,6})(?:(,)(\d{1,6})?)?\}")
_GROUP = re.compile(r"\?(?::|P?<[A-Za-z_]\w*>)")


class _Unsupported(Exception):
    """The expression says something this module does not build."""


@dataclass(frozen=True, slots=True)
class _Chars:
    choices: str


@dataclass(frozen=True, slots=True)
class _Anchor:
    start: bool


@dataclass(frozen=True, slots=True)
class _Sequence:
    items: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Choice:
    options: tuple[_Sequence, ...]


@dataclass(frozen=True, slots=True)
class _Repeat:
    item: _Node
    least: int
    most: int


_Node = _Chars | _Anchor | _Sequence | _Choice | _Repeat


def text_matching(pattern: str, *, rng: random.Random, shortest: int = 0, longest: int | None = None) -> str | None:
    """A text in which `pattern` is found, `shortest` to `longest` characters long; None if none was built."""
    most = shortest + _MAX_STRETCH if longest is None else longest
    try:
        tree = _Parser(pattern).parse()
        for _ in range(_TRIES):
            text = _fitted(tree, rng, shortest, most)
            if text is not None:
                return text
    except (_Unsupported, RecursionError):
        return None
    return None


def _fitted(tree: _Node, rng: random.Random, shortest: int, longest: int) -> str | None:
    state = rng.getstate()
    text, open_end = _Writer(rng, stretch=0).write(tree)
    if len(text) < shortest and open_end:
        text = text.ljust(shortest, "x")
    missing = min(shortest - len(text), _MAX_STRETCH)
    for stretch in range(missing, 0, -1) if missing > 0 else ():
        rng.setstate(state)
        text, _ = _Writer(rng, stretch=stretch).write(tree)
        if shortest <= len(text) <= longest:
            break
        if len(text) < shortest:
            break
    return text if shortest <= len(text) <= longest else None


class _Writer:
    """Writes one text; `stretch` is how many repetitions beyond the least it may spend."""

    def __init__(self, rng: random.Random, *, stretch: int) -> None:
        self._rng = rng
        self._stretch = stretch
        self._parts: list[str] = []
        self._length = 0
        self._ended = False

    def write(self, tree: _Node) -> tuple[str, bool]:
        """The text, and whether more may follow it."""
        self._node(tree)
        return "".join(self._parts), not self._ended

    def _node(self, node: _Node) -> None:
        match node:
            case _Chars(choices):
                if self._ended:
                    raise _Unsupported
                self._parts.append(self._rng.choice(choices))
                self._length += 1
                if self._length > 2 * _MAX_STRETCH:
                    raise _Unsupported
            case _Anchor(start):
                if start and self._length:
                    raise _Unsupported
                self._ended = self._ended or not start
            case _Sequence(items):
                for item in items:
                    self._node(item)
            case _Choice(options):
                self._node(self._rng.choice(options))
            case _Repeat(item, least, most):
                extra = min(most - least, self._stretch)
                self._stretch -= extra
                for _ in range(least + extra):
                    self._node(item)


class _Parser:
    def __init__(self, source: str) -> None:
        self._source = source
        self._at = 0

    def parse(self) -> _Node:
        tree = self._choice()
        if self._at < len(self._source):
            raise _Unsupported
        return tree

    def _peek(self) -> str:
        return self._source[self._at : self._at + 1]

    def _take(self) -> str:
        char = self._peek()
        if not char:
            raise _Unsupported
        self._at += 1
        return char

    def _choice(self) -> _Choice:
        options = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            options.append(self._sequence())
        return _Choice(tuple(options))

    def _sequence(self) -> _Sequence:
        items: list[_Node] = []
        while self._peek() not in ("", "|", ")"):
            items.append(self._quantified(self._atom()))
        return _Sequence(tuple(items))

    def _atom(self) -> _Node:
        char = self._take()
        match char:
            case "^" | "$":
                return _Anchor(start=char == "^")
            case "(":
                return self._group()
            case "[":
                return _Chars(self._class())
            case ".":
                return _Chars(string.ascii_lowercase)
            case "\\":
                return _Chars(_readable(self._escape()))
            case "*" | "+" | "?":
                raise _Unsupported
            case _:
                return _Chars(char)

    def _group(self) -> _Node:
        if self._peek() == "?":
            kind = _GROUP.match(self._source, self._at)
            if kind is None:
                raise _Unsupported
            self._at = kind.end()
        inner = self._choice()
        if self._take() != ")":
            raise _Unsupported
        return inner

    def _quantified(self, item: _Node) -> _Node:
        least, most = self._quantifier()
        if (least, most) == (1, 1):
            return item
        if isinstance(item, _Anchor) or self._peek() in ("*", "{") or most < least:
            raise _Unsupported
        if self._peek() in ("?", "+"):
            self._at += 1
        return _Repeat(item, least, most)

    def _quantifier(self) -> tuple[int, int]:
        char = self._peek()
        if char in ("*", "+", "?") and char:
            self._at += 1
            return {"*": (0, _MAX_STRETCH), "+": (1, _MAX_STRETCH), "?": (0, 1)}[char]
        count = _COUNT.match(self._source, self._at)
        if count is None:
            if self._source.startswith("{,", self._at):
                # Up to n times in Python, plain text in JavaScript.
                raise _Unsupported
            return (1, 1)
        self._at = count.end()
        least = int(count[1])
        if count[2] is None:
            return (least, least)
        return (least, int(count[3]) if count[3] else max(least, _MAX_STRETCH))

    def _escape(self) -> str:
        char = self._take()
        if char.lower() in _CLASSES:
            chosen = _CLASSES[char.lower()]
            return chosen if char.islower() else _without(chosen)
        if char in _CONTROL:
            return _CONTROL[char]
        if char in "xu":
            return chr(self._hex(2 if char == "x" else 4))
        if char.isalnum():
            raise _Unsupported
        return char

    def _hex(self, width: int) -> int:
        digits = self._source[self._at : self._at + width]
        if len(digits) < width or not all(digit in string.hexdigits for digit in digits):
            raise _Unsupported
        self._at += width
        return int(digits, 16)

    def _class(self) -> str:
        negated = self._peek() == "^"
        self._at += negated
        members: list[str] = []
        first = True
        while first or self._peek() != "]":
            first = False
            members.append(self._class_member())
        self._at += 1
        chosen = "".join(members)
        return _readable(_without(chosen) if negated else chosen)

    def _class_member(self) -> str:
        low = self._class_char()
        if self._peek() != "-" or self._source[self._at + 1 : self._at + 2] in ("]", ""):
            return low
        self._at += 1
        high = self._class_char()
        if len(low) != 1 or len(high) != 1 or high < low:
            raise _Unsupported
        return "".join(map(chr, range(ord(low), ord(high) + 1)))

    def _class_char(self) -> str:
        char = self._take()
        if char == "[":
            raise _Unsupported
        return self._escape() if char == "\\" else char


def _without(excluded: str) -> str:
    return "".join(char for char in _PRINTABLE if char not in excluded)


def _readable(choices: str) -> str:
    """Letters and digits where the class has them. Raises when the class is empty."""
    plain = "".join(char for char in choices if char.isascii() and char.isalnum())
    if not (plain or choices):
        raise _Unsupported
    return plain or choices
